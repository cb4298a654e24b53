import type { Connection } from '../feed.js';
import { RetryPolicy } from '../retry.js';
import { TailHub } from '../tail-hub.js';
import type { ToWorker } from './protocol.js';
import { Tab } from './tab.js';

/** A tab that says nothing for so long is gone. Browsers let hidden tabs speak once a minute. */
const SILENCE_MS_MAX = 200_000;
const CHECK_MS = 30_000;
/** How long one tab may take to say which headers to use. */
const HEADERS_MS_MAX = 2_000;

/** One stream and the tabs that share it. */
interface Shared {
  hub: TailHub;
  tabs: Set<Tab>;
  /** What the last tab asked said. */
  headers: Headers;
}

/** Connects tabs to streams. */
export class Switchboard {
  readonly #shared = new Map<string, Shared>();

  constructor() {
    setInterval(() => this.#dropSilent(), CHECK_MS);
  }

  /** A tab has come. */
  connect(port: MessagePort): void {
    const tab = new Tab(port, {
      open: (message) => this.#open(tab, message),
      left: () => this.#left(tab),
    });
  }

  #open(tab: Tab, message: Extract<ToWorker, { type: 'open' }>): TailHub {
    const key = JSON.stringify([message.url, message.key]);
    let shared = this.#shared.get(key);
    if (shared === undefined) {
      shared = { hub: this.#hub(key, message), tabs: new Set(), headers: new Headers() };
      this.#shared.set(key, shared);
    }
    shared.tabs.add(tab);
    return shared.hub;
  }

  #hub(key: string, { url, timeoutMs, retry }: Extract<ToWorker, { type: 'open' }>): TailHub {
    const settings = {
      url,
      timeoutMs,
      retry: new RetryPolicy(retry),
      headers: () => this.#headers(key),
      fetch: (input: RequestInfo | URL, init?: RequestInit) => globalThis.fetch(input, init),
    };
    return new TailHub(settings, (connection: Connection) => {
      this.#shared.get(key)?.tabs.forEach((tab) => tab.show(connection));
    });
  }

  /** Asks the tabs, the newest first, which headers to use; the last known ones if none answers. */
  async #headers(key: string): Promise<Headers> {
    const shared = this.#shared.get(key);
    for (const tab of [...(shared?.tabs ?? [])].reverse()) {
      const headers = await tab.headers(HEADERS_MS_MAX);
      if (headers === undefined || shared === undefined) continue;
      shared.headers = headers;
      return headers;
    }
    return shared?.headers ?? new Headers();
  }

  #left(tab: Tab): void {
    for (const [key, { hub, tabs }] of this.#shared) {
      if (!tabs.delete(tab) || tabs.size > 0) continue;
      hub.close();
      this.#shared.delete(key);
    }
  }

  #dropSilent(): void {
    for (const { tabs } of this.#shared.values()) {
      for (const tab of [...tabs]) if (tab.silentMs > SILENCE_MS_MAX) tab.drop();
    }
  }
}
