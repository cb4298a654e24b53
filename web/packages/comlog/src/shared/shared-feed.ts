import type { Connection, Feed, Subscription } from '../feed.js';
import { Inbox } from '../inbox.js';
import type { ClientSettings } from '../options.js';
import { TailHub } from '../tail-hub.js';
import { watchWakeups } from '../wakeups.js';
import { fromPlain, type ToTab, type ToWorker } from './protocol.js';

/** A worker that has not answered for so long is not there. */
const ANSWER_MS_MAX = 10_000;
/** How often the worker hears that the tab is alive; hidden tabs do so once a minute. */
const PING_MS = 20_000;

/** The tab's end of a shared stream. When the worker fails, a stream of the tab's own takes over. */
export class SharedFeed implements Feed {
  readonly #port: MessagePort;
  readonly #key: string;
  readonly #settings: ClientSettings;
  readonly #onConnection: (connection: Connection) => void;
  readonly #inboxes = new Map<number, Inbox>();
  readonly #endings: (() => void)[] = [];
  #connection: Connection = { state: 'connecting' };
  #nextId = 0;
  #answered = false;
  #closed = false;
  /** Takes over from the worker. */
  #own: Feed | undefined;

  constructor(
    worker: SharedWorker,
    key: string,
    settings: ClientSettings,
    onConnection: (connection: Connection) => void,
  ) {
    this.#port = worker.port;
    this.#key = key;
    this.#settings = settings;
    this.#onConnection = onConnection;
    this.#port.onmessage = ({ data }: MessageEvent<ToTab>) => this.#hear(data);
    this.#watch(worker);
    this.#open();
  }

  get connection(): Connection {
    return this.#own?.connection ?? this.#connection;
  }

  subscribe(topic: string, partition: number, offset: bigint): Subscription {
    if (this.#own !== undefined) return this.#own.subscribe(topic, partition, offset);
    const id = this.#nextId;
    this.#nextId += 1;
    // The worker bounds what is under way, and what waits there.
    const inbox = new Inbox(
      Infinity,
      () => this.#unsubscribe(id),
      (bytes) => this.#say({ type: 'taken', id, bytes }),
    );
    if (this.#closed) {
      inbox.end();
      return inbox;
    }
    this.#inboxes.set(id, inbox);
    this.#say({ type: 'subscribe', id, topic, partition, offset });
    return inbox;
  }

  close(): void {
    this.#say({ type: 'bye' });
    this.#closed = true;
    this.#leave();
    this.#own?.close();
  }

  #watch(worker: SharedWorker): void {
    const timer = setInterval(() => this.#say({ type: 'ping' }), PING_MS);
    const patience = setTimeout(() => this.#answered || this.#takeOver(), ANSWER_MS_MAX);
    const onError = () => this.#takeOver();
    const onHide = () => this.#say({ type: 'bye' });
    const onShow = (event: PageTransitionEvent) => event.persisted && this.#reopen();
    worker.addEventListener('error', onError);
    globalThis.addEventListener?.('pagehide', onHide);
    globalThis.addEventListener?.('pageshow', onShow);
    this.#endings.push(
      watchWakeups(() => this.#say({ type: 'wake' })),
      () => clearInterval(timer),
      () => clearTimeout(patience),
      () => worker.removeEventListener('error', onError),
      () => globalThis.removeEventListener?.('pagehide', onHide),
      () => globalThis.removeEventListener?.('pageshow', onShow),
    );
  }

  #open(): void {
    const { url, timeoutMs, retry } = this.#settings;
    const { backoffMinMs, backoffMaxMs, attemptsMax } = retry;
    this.#say({ type: 'open', url, key: this.#key, timeoutMs, retry: { backoffMinMs, backoffMaxMs, attemptsMax } });
  }

  /** The worker has forgotten this tab: readers read on by themselves and subscribe anew. */
  #reopen(): void {
    this.#open();
    this.#endAll();
  }

  #hear(message: ToTab): void {
    this.#answered = true;
    switch (message.type) {
      case 'connection':
        return this.#show({ ...message, error: fromPlain(message.error) });
      case 'live':
        return this.#inboxes.get(message.id)?.goLive(message.offset);
      case 'piece':
        this.#inboxes.get(message.id)?.push(message.piece);
        return;
      case 'ended':
        this.#inboxes.get(message.id)?.end(fromPlain(message.error));
        this.#inboxes.delete(message.id);
        return;
      case 'headers':
        return void this.#tellHeaders();
      case 'gone':
        return this.#reopen();
    }
  }

  async #tellHeaders(): Promise<void> {
    // Without an answer the worker asks another tab.
    const headers = await this.#settings.headers().catch(() => undefined);
    if (headers === undefined) return;
    const pairs: [string, string][] = [];
    headers.forEach((value, name) => pairs.push([name, value]));
    this.#say({ type: 'headers', headers: pairs });
  }

  #unsubscribe(id: number): void {
    if (this.#inboxes.delete(id)) this.#say({ type: 'unsubscribe', id });
  }

  #takeOver(): void {
    if (this.#closed || this.#own !== undefined) return;
    this.#leave();
    this.#own = TailHub.over(this.#settings, this.#onConnection);
    this.#endAll();
  }

  #leave(): void {
    for (const end of this.#endings.splice(0)) end();
    this.#port.onmessage = null;
    this.#port.close();
    if (this.#closed) this.#endAll();
  }

  #endAll(): void {
    const inboxes = [...this.#inboxes.values()];
    this.#inboxes.clear();
    for (const inbox of inboxes) inbox.end();
  }

  #say(message: ToWorker): void {
    if (!this.#closed && this.#own === undefined) this.#port.postMessage(message);
  }

  #show({ state, error, retryAt }: Connection): void {
    this.#connection = { state, error, retryAt };
    this.#onConnection(this.#connection);
  }
}
