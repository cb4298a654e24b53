/**
 * The live stream of a client: one Tail call for all partitions that anybody follows, changed by
 * UpdateTail while it runs, opened again from where it stood when it breaks.
 */
import { deferred, sleep } from './abort.js';
import { Calls } from './calls.js';
import { ComlogError } from './error.js';
import type { Connection, Feed, Subscription } from './feed.js';
import { Followed, followedKey } from './followed.js';
import { Form, type TailResponse } from './gen/comlog/v1/log_pb.js';
import { Inbox } from './inbox.js';
import type { ClientSettings } from './options.js';
import { fromCall, fromMessage } from './status.js';
import { TailSession } from './tail-session.js';
import { watchWakeups } from './wakeups.js';
import { pieceFromWire } from './wire.js';

/** Most bytes that wait for one reader; over it that reader has to read by itself. */
const INBOX_BYTES_MAX = 4 << 20;
/** Most bytes of one message of the stream. */
const MESSAGE_BYTES_MAX = 512 << 10;
/** The server says something every 15 s by default; a stream silent for so long is dead. */
const SILENCE_MS_MAX = 45_000;
/** After the computer slept or the page was hidden, less patience. */
const SILENCE_MS_MAX_AWAKE = 20_000;
/** How long a stream that nobody needs is kept, since seeking leaves it for a moment. */
const UNUSED_MS_MAX = 5_000;

/** See the module's description. */
export class TailHub implements Feed {
  readonly #calls: Calls;
  readonly #onConnection: (connection: Connection) => void;
  readonly #followed = new Map<string, Followed>();
  readonly #stopWatching: () => void;
  #connection: Connection = { state: 'idle' };
  #session: TailSession | undefined;
  #running = false;
  #heardAt = 0;
  /** Ends the wait for the next attempt. */
  #hurry = deferred<void>();
  #unusedTimer: ReturnType<typeof setTimeout> | undefined;

  /** The usual source of a client: a stream of its own. */
  static over(settings: ClientSettings, onConnection: (connection: Connection) => void): TailHub {
    return new TailHub(settings, onConnection);
  }

  constructor(settings: ClientSettings, onConnection: (connection: Connection) => void) {
    this.#calls = new Calls(settings);
    this.#onConnection = onConnection;
    this.#stopWatching = watchWakeups(() => this.wake());
  }

  get connection(): Connection {
    return this.#connection;
  }

  subscribe(topic: string, partition: number, offset: bigint): Subscription {
    const key = followedKey(topic, partition);
    const inbox = new Inbox(INBOX_BYTES_MAX, (closed) => this.#leave(key, closed));
    if (this.#calls.closed.aborted) {
      inbox.end(closedError());
      return inbox;
    }
    let followed = this.#followed.get(key);
    if (followed === undefined) {
      followed = new Followed(topic, partition, offset);
      this.#followed.set(key, followed);
    }
    followed.join(inbox, offset);
    this.#changed();
    return inbox;
  }

  /** The page is seen again, or the network is back: what looks open may be dead. */
  wake(): void {
    this.#checkSilence(SILENCE_MS_MAX_AWAKE);
    this.#hurry.resolve();
  }

  close(): void {
    clearTimeout(this.#unusedTimer);
    this.#stopWatching();
    this.#calls.close();
    this.#session?.abort(closedError());
    for (const followed of this.#followed.values()) followed.fail(closedError());
    this.#followed.clear();
    this.#hurry.resolve();
  }

  #leave(key: string, inbox: Inbox): void {
    if (this.#followed.get(key)?.leave(inbox)) this.#changed();
  }

  /** Somebody came or went. */
  #changed(): void {
    if (this.#calls.closed.aborted) return;
    clearTimeout(this.#unusedTimer);
    if (!this.#isNeeded()) {
      this.#unusedTimer = setTimeout(() => this.#session?.abort(), UNUSED_MS_MAX);
    } else if (!this.#running) {
      void this.#run();
    }
    this.#session?.update();
  }

  #isNeeded(): boolean {
    for (const followed of this.#followed.values()) if (followed.isWanted) return true;
    return false;
  }

  async #run(): Promise<void> {
    this.#running = true;
    let failures = 0;
    while (this.#isNeeded() && !this.#calls.closed.aborted) {
      this.#show({ state: 'connecting' });
      const session = new TailSession(this.#calls, this.#followed);
      this.#session = session;
      const error = await this.#follow(session, () => (failures = 0));
      this.#session = undefined;
      this.#lostStream();
      if (!this.#isNeeded() || this.#calls.closed.aborted) break;
      if (error.code === 'CANCELLED') continue; // needed again in the moment it was given up
      failures += 1;
      await this.#backOff(failures, error);
    }
    this.#running = false;
    this.#show({ state: 'idle' });
  }

  /** Runs one stream to its end; what ended it. */
  async #follow(session: TailSession, onProgress: () => void): Promise<ComlogError> {
    this.#heardAt = Date.now();
    const watchdog = setInterval(() => this.#checkSilence(SILENCE_MS_MAX), SILENCE_MS_MAX / 9);
    try {
      for await (const message of session.messages(Form.RECORDS, MESSAGE_BYTES_MAX)) {
        this.#heardAt = Date.now();
        if (message.kind.case === 'opened') {
          this.#show({ state: 'open' });
        } else {
          // Opening alone proves little: what comes behind it may fail each time.
          onProgress();
          this.#take(message, session);
        }
      }
      return new ComlogError('UNAVAILABLE', 'the server ended the stream');
    } catch (error) {
      if (error instanceof ComlogError) return error;
      return new ComlogError('INTERNAL', 'the stream failed', { cause: error });
    } finally {
      clearInterval(watchdog);
      session.abort();
    }
  }

  #take({ kind }: TailResponse, session: TailSession): void {
    if (kind.case !== 'fetched' && kind.case !== 'failed') return;
    const { topic, partition, generation } = kind.value;
    const followed = this.#followed.get(followedKey(topic, partition));
    if (followed === undefined || followed.generation !== generation) return;
    if (kind.case === 'failed') {
      followed.fail(fromMessage(kind.value.error));
      session.update();
    } else {
      try {
        if (followed.deliver(pieceFromWire(kind.value.fetched))) this.#changed();
      } catch (error) {
        followed.fail(fromCall(error));
        session.update();
      }
    }
  }

  #lostStream(): void {
    for (const [key, followed] of this.#followed) {
      followed.lostStream();
      if (!followed.isWanted) this.#followed.delete(key);
    }
  }

  async #backOff(failures: number, error: ComlogError): Promise<void> {
    const waitMs = this.#calls.settings.retry.backoffMs(failures, Math.random());
    this.#show({ state: 'waiting', error, retryAt: Date.now() + waitMs });
    this.#hurry = deferred();
    const waited = new AbortController();
    await Promise.race([sleep(waitMs, waited.signal).catch(() => {}), this.#hurry.promise]);
    waited.abort();
  }

  #checkSilence(msMax: number): void {
    if (Date.now() - this.#heardAt > msMax) {
      this.#session?.abort(new ComlogError('UNAVAILABLE', `the server was silent for ${msMax} ms`));
    }
  }

  #show(connection: Connection): void {
    if (connection.state === this.#connection.state && connection.state !== 'waiting') return;
    this.#connection = connection;
    // Not from here: what it throws is not ours.
    queueMicrotask(() => this.#onConnection(connection));
  }
}

function closedError(): ComlogError {
  return new ComlogError('CANCELLED', 'the client is closed');
}
