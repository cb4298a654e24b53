import { deferred, type Deferred } from '../abort.js';
import { ComlogError } from '../error.js';
import type { Connection, Subscription } from '../feed.js';
import type { TailHub } from '../tail-hub.js';
import { toPlain, type ToTab, type ToWorker } from './protocol.js';

/** Most bytes of one subscription that were sent to a tab and are not taken there. */
const UNTAKEN_BYTES_MAX = 1 << 20;

/** Whom a {@link Tab} tells. */
export interface TabOwner {
  /** The tab wants a stream. */
  open(message: Extract<ToWorker, { type: 'open' }>): TailHub;
  /** The tab is gone. */
  left(): void;
}

/** A subscription on its way to the tab. */
interface Forwarded {
  subscription: Subscription;
  untaken: number;
  taken: Deferred<void> | undefined;
  stop: AbortController;
}

/** The worker's end of a port: one tab and what it follows. */
export class Tab {
  readonly #port: MessagePort;
  readonly #owner: TabOwner;
  readonly #forwarded = new Map<number, Forwarded>();
  #hub: TailHub | undefined;
  #heardAt = Date.now();
  #headers: Deferred<Headers | undefined> | undefined;

  constructor(port: MessagePort, owner: TabOwner) {
    this.#port = port;
    this.#owner = owner;
    port.onmessage = ({ data }: MessageEvent<ToWorker>) => this.#hear(data);
  }

  /** How long it has said nothing. */
  get silentMs(): number {
    return Date.now() - this.#heardAt;
  }

  show({ state, error, retryAt }: Connection): void {
    this.#say({ type: 'connection', state, retryAt, error: toPlain(error) });
  }

  /** Which headers to use; `undefined` when it does not say so in time. */
  async headers(msMax: number): Promise<Headers | undefined> {
    this.#headers ??= deferred();
    const { promise, resolve } = this.#headers;
    const timer = setTimeout(() => resolve(undefined), msMax);
    this.#say({ type: 'headers' });
    const headers = await promise;
    clearTimeout(timer);
    this.#headers = undefined;
    return headers;
  }

  /** Forgets what it follows. Should it be alive after all, it is told so and comes back. */
  drop(): void {
    this.#hub = undefined;
    for (const id of [...this.#forwarded.keys()]) this.#stop(id);
    this.#owner.left();
  }

  #hear(message: ToWorker): void {
    this.#heardAt = Date.now();
    if (message.type === 'open') {
      this.drop();
      this.#hub = this.#owner.open(message);
      return this.show(this.#hub.connection);
    }
    if (this.#hub === undefined) {
      // What ends anyway needs no answer.
      if (message.type !== 'bye' && message.type !== 'unsubscribe') this.#say({ type: 'gone' });
      return;
    }
    switch (message.type) {
      case 'subscribe':
        return void this.#forward(message.id, this.#hub.subscribe(message.topic, message.partition, message.offset));
      case 'taken':
        return this.#taken(message.id, message.bytes);
      case 'unsubscribe':
        return this.#stop(message.id);
      case 'headers':
        return this.#headers?.resolve(new Headers(message.headers));
      case 'wake':
        return this.#hub.wake();
      case 'bye':
        return this.drop();
      case 'ping':
        return;
    }
  }

  /** Passes a subscription on, piece by piece, as fast as the tab takes them. */
  async #forward(id: number, subscription: Subscription): Promise<void> {
    const forwarded: Forwarded = { subscription, untaken: 0, taken: undefined, stop: new AbortController() };
    const { signal } = forwarded.stop;
    this.#forwarded.set(id, forwarded);
    let error: ComlogError | undefined;
    try {
      this.#say({ type: 'live', id, offset: await subscription.live });
      for (;;) {
        await this.#room(forwarded);
        const piece = await subscription.next(signal);
        if (piece === undefined) break;
        forwarded.untaken += piece.bytes;
        this.#say({ type: 'piece', id, piece });
      }
    } catch (reason) {
      // What is stopped, or ended before it was live, has no error.
      if (reason instanceof ComlogError && !signal.aborted) error = reason;
    }
    if (signal.aborted) return;
    this.#stop(id);
    this.#say({ type: 'ended', id, error: toPlain(error) });
  }

  async #room(forwarded: Forwarded): Promise<void> {
    while (forwarded.untaken >= UNTAKEN_BYTES_MAX && !forwarded.stop.signal.aborted) {
      forwarded.taken ??= deferred();
      await forwarded.taken.promise;
    }
  }

  #taken(id: number, bytes: number): void {
    const forwarded = this.#forwarded.get(id);
    if (forwarded === undefined) return;
    forwarded.untaken -= bytes;
    forwarded.taken?.resolve();
    forwarded.taken = undefined;
  }

  #stop(id: number): void {
    const forwarded = this.#forwarded.get(id);
    if (forwarded === undefined) return;
    this.#forwarded.delete(id);
    forwarded.stop.abort();
    forwarded.taken?.resolve();
    forwarded.subscription.close();
  }

  #say(message: ToTab): void {
    this.#port.postMessage(message);
  }
}
