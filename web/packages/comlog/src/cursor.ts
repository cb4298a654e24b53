import { abortable, sleep, type Gate } from './abort.js';
import type { Calls } from './calls.js';
import { ComlogError } from './error.js';
import type { Feed, Piece, Subscription } from './feed.js';
import { Form } from './gen/comlog/v1/log_pb.js';
import { ENDED } from './inbox.js';
import type { ConsumerRecord } from './record.js';
import { incomplete, nonsense } from './topic.js';
import { pieceFromWire, startOffset, startToWire, type StartAt } from './wire.js';

/** Most bytes of one read. */
const READ_BYTES_MAX = 1 << 20;

/** Most reads in a row that bring nothing, though there should be something. */
const IDLE_READS_MAX = 5;

/** What a cursor stands on; one per consumer. */
export interface CursorContext {
  readonly calls: Calls;
  readonly feed: Feed;
  /** Few reads at once: a browser has few connections. */
  readonly reads: Gate;
  readonly outOfRange: 'error' | 'earliest' | 'latest';
  /** Where to start when nothing was said: what the group has committed, or the default. */
  start(topic: string, partition: number): Promise<StartAt>;
  /** Waits while the consumer's buffer is full. */
  room(signal: AbortSignal): Promise<void>;
  /** Bytes were added to the buffer (or taken, below 0), or there is an error to tell. */
  changed(bytes: number): void;
}

/**
 * One partition of a consumer. Short reads bring it to the end of the log; there it joins the live
 * stream, and returns to reading whenever it cannot keep up with that.
 */
export class Cursor {
  readonly topic: string;
  readonly partition: number;
  readonly #context: CursorContext;
  /** Where to start, until that is known as an offset. */
  #at: StartAt | undefined;
  /** The next offset to fetch. */
  #fetchOffset: bigint | undefined;
  #highWatermark: bigint | undefined;
  #buffer: { piece: Piece; next: number }[] = [];
  #paused = false;
  #error: ComlogError | undefined;
  /** Rests until it is sought. */
  #failed = false;
  /** Ends what is under way. */
  #run: AbortController | undefined;

  /** Begins to fetch at once; without `at` where the context says. */
  constructor(context: CursorContext, topic: string, partition: number, at: StartAt | undefined) {
    this.#context = context;
    this.topic = topic;
    this.partition = partition;
    this.#at = at;
    this.#fetchOffset = at === undefined ? undefined : startOffset(at);
    this.#start();
  }

  /** The next offset to hand out, once known. */
  get position(): bigint | undefined {
    const head = this.#buffer[0];
    return head?.piece.records[head.next]?.offset ?? this.#fetchOffset;
  }

  /** Behind the last visible record, as far as known. */
  get highWatermark(): bigint | undefined {
    return this.#highWatermark;
  }

  get paused(): boolean {
    return this.#paused;
  }

  /** Takes up to `max` records that are there. */
  take(max: number, into: ConsumerRecord[]): void {
    while (!this.#paused && into.length < max) {
      const head = this.#buffer[0];
      if (head === undefined) return;
      const record = head.piece.records[head.next];
      if (record !== undefined) {
        head.next += 1;
        into.push({ topic: this.topic, partition: this.partition, ...record });
      }
      if (head.next >= head.piece.records.length) {
        this.#buffer.shift();
        this.#context.changed(-head.piece.bytes);
      }
    }
  }

  /** The error that stopped it, once, and only when what came before it was taken. */
  takeError(): ComlogError | undefined {
    if (this.#buffer.length > 0) return undefined;
    const error = this.#error;
    this.#error = undefined;
    return error;
  }

  /** Goes on from there; also ends a failure. */
  seek(at: StartAt): void {
    this.#stop();
    this.#drop();
    this.#error = undefined;
    this.#failed = false;
    this.#at = at;
    this.#fetchOffset = startOffset(at);
    if (!this.#paused) this.#start();
  }

  pause(): void {
    this.#paused = true;
    this.#stop();
  }

  /** Goes on where it was paused. A partition that has failed rests all the same. */
  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    if (!this.#failed) this.#start();
    this.#context.changed(0);
  }

  close(): void {
    this.#stop();
    this.#drop();
  }

  #stop(): void {
    this.#run?.abort(STOPPED);
    this.#run = undefined;
  }

  #drop(): void {
    const dropped = this.#buffer.reduce((bytes, { piece }) => bytes + piece.bytes, 0);
    this.#buffer = [];
    this.#context.changed(-dropped);
  }

  #start(): void {
    const run = new AbortController();
    this.#run = run;
    void this.#fetch(run.signal);
  }

  /** Fetches until it is stopped or fails. */
  async #fetch(signal: AbortSignal): Promise<void> {
    for (let failures = 0; ; ) {
      try {
        await this.#fetchOnce(signal, () => (failures = 0));
      } catch (reason) {
        if (signal.aborted || !this.#mayGoOn(reason)) return;
      }
      failures += 1;
      const waitMs = this.#context.calls.settings.retry.backoffMs(failures, Math.random());
      if (!(await sleep(waitMs, signal).then(() => true, () => false))) return;
    }
  }

  /** After a failure: whether to try again. If not, the error is kept for the application. */
  #mayGoOn(reason: unknown): boolean {
    const error =
      reason instanceof ComlogError ? reason : new ComlogError('INTERNAL', 'fetching failed', { cause: reason });
    if (error.retryable && !this.#context.calls.closed.aborted) return true;
    const { outOfRange } = this.#context;
    if (error.reason === 'OFFSET_OUT_OF_RANGE' && outOfRange !== 'error') {
      this.#at = outOfRange;
      this.#fetchOffset = undefined;
      return true;
    }
    this.#error = error;
    this.#failed = true;
    this.#context.changed(0);
    return false;
  }

  /** Reads to the end of the log and follows from there; never returns by itself. */
  async #fetchOnce(signal: AbortSignal, onProgress: () => void): Promise<void> {
    let offset = this.#fetchOffset ?? (await this.#resolve(signal));
    for (;;) {
      offset = await this.#readTo(undefined, signal, onProgress);
      const subscription = this.#context.feed.subscribe(this.topic, this.partition, offset);
      try {
        await this.#follow(subscription, signal, onProgress);
      } finally {
        subscription.close();
      }
    }
  }

  /** Which offset it is to start at. */
  async #resolve(signal: AbortSignal): Promise<bigint> {
    const { calls, reads } = this.#context;
    const { topic, partition } = this;
    const at = this.#at ?? (await abortable(this.#context.start(topic, partition), signal));
    let offset = startOffset(at);
    if (offset === undefined) {
      const message = { queries: [{ topic, partition, at: startToWire(at) }] };
      const ask = () => calls.again((call) => calls.logs.listOffsets(message, call), { signal });
      const [found] = (await reads.run(ask, signal)).offsets;
      if (found === undefined) throw incomplete('an offset');
      const isAsked = found.topic === topic && found.partition === partition && found.offset >= 0n;
      if (!isAsked) throw nonsense(`offset ${found.offset} of ${found.topic}/${found.partition}`);
      offset = found.offset;
      this.#highWatermark = found.highWatermark;
    }
    signal.throwIfAborted();
    this.#fetchOffset = offset;
    return offset;
  }

  /** Reads up to `end`, or to the end of the log; where that was. */
  async #readTo(end: bigint | undefined, signal: AbortSignal, onProgress: () => void): Promise<bigint> {
    const { calls, reads } = this.#context;
    const { topic, partition } = this;
    for (let idle = 0; ; ) {
      const offset = this.#fetchOffset ?? 0n;
      if (end !== undefined && offset >= end) return offset;
      await this.#context.room(signal);
      const message = { topic, partition, offset, maxBytes: READ_BYTES_MAX, form: Form.RECORDS };
      const read = () => calls.once((call) => calls.logs.read(message, call), { signal });
      const { fetched } = await reads.run(read, signal);
      const piece = pieceFromWire(fetched, offset);
      signal.throwIfAborted();
      onProgress();
      this.#push(piece);
      if (end === undefined && piece.nextOffset >= piece.highWatermark) return piece.nextOffset;
      idle = piece.nextOffset > offset ? 0 : idle + 1;
      if (idle === 0) continue;
      // Records may come between its look at them and at the end; not again and again.
      if (idle > IDLE_READS_MAX) throw nonsense(`no records at ${offset}, but an end at ${end ?? piece.highWatermark}`);
      await sleep(calls.settings.retry.backoffMs(idle, Math.random()), signal);
    }
  }

  /** Follows live; returns when it fell behind. */
  async #follow(subscription: Subscription, signal: AbortSignal, onProgress: () => void): Promise<void> {
    try {
      const liveFrom = await abortable(subscription.live, signal);
      await this.#readTo(liveFrom, signal, onProgress);
    } catch (reason) {
      if (reason === ENDED) return;
      throw reason;
    }
    for (;;) {
      const piece = await subscription.next(signal);
      signal.throwIfAborted();
      if (piece === undefined) return;
      onProgress();
      this.#push(piece);
      await this.#context.room(signal);
    }
  }

  /** Buffers what of a piece is new. */
  #push(piece: Piece): void {
    this.#highWatermark = piece.highWatermark;
    const from = this.#fetchOffset ?? 0n;
    if (piece.nextOffset <= from) return;
    this.#fetchOffset = piece.nextOffset;
    const first = piece.records.findIndex((record) => record.offset >= from);
    if (first < 0) return;
    this.#buffer.push({ piece, next: first });
    this.#context.changed(piece.bytes);
  }
}

/** Why a run was ended: nobody waits for it. */
const STOPPED = new ComlogError('CANCELLED', 'stopped');
