import { abortable, anySignal, sleep, timerMs, type Gate } from './abort.js';
import { Batch, type Item } from './batch.js';
import type { Calls } from './calls.js';
import { ComlogError } from './error.js';
import type { Compression as WireCompression, Durability as WireDurability } from './gen/comlog/v1/common_pb.js';
import { fromCall } from './status.js';
import { nonsense } from './topic.js';
import { appendedFromWire, type Appended } from './wire.js';

/** Sequences count from 0 to 2^31 - 1 and start again. */
const SEQUENCES = 2 ** 31;

/** What the lanes of a producer share. */
export interface LaneContext {
  readonly calls: Calls;
  /** Few appends at once: a browser has few connections. */
  readonly gate: Gate;
  /** Bytes at which a batch of the topic is full. */
  batchBytes(topic: string): number;
  /** A batch of the topic was too large: what is known of its limit may be out of date. */
  learn(topic: string): Promise<void>;
  readonly batchRecordsMax: number;
  readonly lingerMs: number;
  readonly deliveryTimeoutMs: number;
  readonly idempotence: boolean;
  readonly compression: WireCompression;
  readonly durability: WireDurability;
  /** Aborted when the producer is abandoned. */
  readonly abandoned: AbortSignal;
  /** A batch is acknowledged or has failed. */
  finished(batch: Batch, error: ComlogError | undefined): void;
}

/** Who a lane's batches come from. */
interface Identity {
  id: bigint;
  epoch: number;
}

/**
 * The records of one partition, gathered into batches that are sent one after the other: over
 * several connections of HTTP/1.1 two could overtake each other.
 *
 * Every lane has a producer id of its own. A batch keeps its sequence until it is acknowledged, so
 * that the server recognises it when it is sent again. After a failure the next batch is numbered
 * from 0 under a raised epoch, which shuts out any late copy of what failed.
 */
export class Lane {
  readonly topic: string;
  readonly partition: number;
  readonly #context: LaneContext;
  readonly #full: Batch[] = [];
  #open: Batch | undefined;
  #running = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #identity: Identity | undefined;
  /** The identity must not be used again before its epoch is raised. */
  #spent = false;
  #sequence = 0;

  constructor(context: LaneContext, topic: string, partition: number) {
    this.#context = context;
    this.topic = topic;
    this.partition = partition;
  }

  /** Whether records are being gathered. */
  get isGathering(): boolean {
    return this.#open !== undefined;
  }

  add(item: Item): void {
    const { batchRecordsMax } = this.#context;
    const batchBytes = this.#context.batchBytes(this.topic);
    if (this.#open !== undefined && this.#open.bytes + item.bytes > batchBytes) this.#seal();
    this.#open ??= new Batch(item.sentAt);
    this.#open.add(item);
    if (this.#open.bytes >= batchBytes || this.#open.items.length >= batchRecordsMax) this.#seal();
    this.wake();
  }

  /** Sends what is ready, unless that is under way. */
  wake(): void {
    if (this.#running) return;
    this.#running = true;
    // What is sent in the same turn goes together.
    queueMicrotask(() => void this.#run());
  }

  /** Takes everything that was not sent; nothing more is. */
  abandon(): Batch[] {
    clearTimeout(this.#timer);
    this.#seal();
    return this.#full.splice(0);
  }

  #seal(): void {
    if (this.#open !== undefined) this.#full.push(this.#open);
    this.#open = undefined;
  }

  async #run(): Promise<void> {
    for (let batch = this.#next(); batch !== undefined; batch = this.#next()) {
      // It was gathered before the limit of the topic was known.
      const parts = batch.split(this.#context.batchBytes(this.topic));
      if (parts.length > 1) {
        this.#full.unshift(...parts);
        continue;
      }
      let error: ComlogError | undefined;
      try {
        batch.resolve(this.topic, this.partition, await this.#deliver(batch));
      } catch (reason) {
        if (reason instanceof TooLarge) {
          this.#full.unshift(...batch.split(Math.floor(batch.bytes / 2)));
          continue;
        }
        error = fromCall(reason);
        this.#spent = true;
        batch.reject(error);
      }
      this.#context.finished(batch, error);
    }
    this.#running = false;
  }

  /** The oldest batch, if it is full, urgent or has lingered; else it is looked at again in time. */
  #next(): Batch | undefined {
    clearTimeout(this.#timer);
    if (this.#context.abandoned.aborted) return undefined;
    if (this.#full.length === 0 && this.#open !== undefined) {
      const lingerMs = this.#open.sentAt + this.#context.lingerMs - performance.now();
      if (lingerMs <= 0 || this.#open.urgent) this.#seal();
      else this.#timer = setTimeout(() => this.wake(), lingerMs);
    }
    return this.#full.shift();
  }

  /** Sends a batch until it is acknowledged; `undefined` when it is in the log, but not known where. */
  async #deliver(batch: Batch): Promise<Appended | undefined> {
    const { abandoned, deliveryTimeoutMs } = this.#context;
    const leftMs = batch.sentAt + deliveryTimeoutMs - performance.now();
    let lastError: ComlogError | undefined;
    const late = new AbortController();
    const expire = () => late.abort(timedOut(deliveryTimeoutMs, lastError));
    if (leftMs <= 0) expire();
    const timer = setTimeout(expire, timerMs(leftMs));
    const { signal, release } = anySignal([abandoned, late.signal]);
    try {
      return await this.#deliverUntil(signal, batch, (error) => (lastError = error));
    } finally {
      clearTimeout(timer);
      release();
    }
  }

  async #deliverUntil(
    signal: AbortSignal,
    batch: Batch,
    onError: (error: ComlogError) => void,
  ): Promise<Appended | undefined> {
    const { calls } = this.#context;
    let renumbered = false;
    // Whether an attempt may have reached the log without an answer.
    let unsure = false;
    for (let failures = 0; ; ) {
      signal.throwIfAborted();
      try {
        return await this.#send(signal, batch);
      } catch (reason) {
        signal.throwIfAborted();
        const error = fromCall(reason);
        onError(error);
        if (error.reason === 'BATCH_TOO_LARGE' && batch.items.length > 1 && !unsure) {
          await abortable(this.#context.learn(this.topic), signal);
          throw new TooLarge();
        }
        unsure ||= error.reason === undefined;
        if (error.reason === 'DUPLICATE_SEQUENCE') {
          this.#advance(batch);
          return undefined;
        }
        if (error.reason === 'OUT_OF_ORDER_SEQUENCE' && !renumbered) {
          // What came before this batch is not in the log, so neither is the batch.
          renumbered = true;
          this.#spent = true;
          continue;
        }
        if (error.reason === 'PRODUCER_FENCED') this.#identity = undefined;
        if (!mayAppendAgain(error) || calls.closed.aborted) throw error;
      }
      failures += 1;
      await sleep(calls.settings.retry.backoffMs(failures, Math.random()), signal);
    }
  }

  async #send(signal: AbortSignal, batch: Batch): Promise<Appended> {
    const { calls, gate, idempotence, compression, durability } = this.#context;
    const identity = idempotence ? await this.#identify(signal) : undefined;
    const message = {
      topic: this.topic,
      partition: this.partition,
      records: batch.items.map((item) => item.wire),
      compression,
      durability,
      ...(identity === undefined ? {} : { producer: { ...identity, sequence: this.#sequence } }),
    };
    const append = () => calls.once((call) => calls.logs.append(message, call), { signal });
    const { appended } = await gate.run(append, signal);
    const placed = appendedFromWire(appended, batch.items.length);
    this.#advance(batch);
    return placed;
  }

  #advance(batch: Batch): void {
    this.#sequence = (this.#sequence + batch.items.length) % SEQUENCES;
  }

  /** The identity to send under: asked for at first, raised after a failure. */
  async #identify(signal: AbortSignal): Promise<Identity> {
    const { calls } = this.#context;
    if (this.#identity !== undefined && !this.#spent) return this.#identity;
    const raised = this.#identity;
    const message = raised === undefined ? {} : { producerId: raised.id, producerEpoch: raised.epoch };
    try {
      const { producerId, producerEpoch } = await calls.once(
        (call) => calls.logs.initProducerId(message, call),
        { signal },
      );
      if (producerId < 0n || producerEpoch < 0 || producerEpoch >= 2 ** 15) {
        throw nonsense(`producer ${producerId} of epoch ${producerEpoch}`);
      }
      this.#identity = { id: producerId, epoch: producerEpoch };
      this.#spent = false;
      this.#sequence = 0;
      return this.#identity;
    } catch (reason) {
      signal.throwIfAborted();
      const error = fromCall(reason);
      // An id whose epoch cannot be raised is left for a fresh one.
      if (raised === undefined || error.retryable) throw error;
      this.#identity = undefined;
      return this.#identify(signal);
    }
  }
}

/** A batch was refused, is in the log for sure not, and can be sent in parts. */
class TooLarge extends Error {}

/** Whether a refused batch is to be sent again, with the same sequence. */
export function mayAppendAgain(error: ComlogError): boolean {
  return error.retryable || error.reason === 'STORAGE_FULL' || error.reason === 'SUSPENDED';
}

/** The time of a record is over. */
export function timedOut(timeoutMs: number, cause: ComlogError | undefined): ComlogError {
  const why = cause === undefined ? '' : `: ${cause.message}`;
  const message = `not acknowledged within ${timeoutMs} ms${why}; whether it is in the log is not known`;
  return new ComlogError('DEADLINE_EXCEEDED', message, { cause });
}
