/// <reference lib="esnext.disposable" preserve="true" />
import { Gate, abortable, deferred, sleep, timerMs, type Deferred } from './abort.js';
import { Flight, type Batch, type Delivered, type Item } from './batch.js';
import type { Calls } from './calls.js';
import { checkObject, checkPlace } from './check.js';
import { ComlogError } from './error.js';
import type { DescribeTopicResponse } from './gen/comlog/v1/topic_pb.js';
import { Lane, timedOut, type LaneContext } from './lane.js';
import { positive } from './options.js';
import { partitionForKey } from './partitioner.js';
import type { RecordInput } from './record.js';
import { atLeast0 } from './retry.js';
import { fromCall } from './status.js';
import { durabilityToWire, partitionsOf, type Durability } from './topic.js';
import { compressionToWire, recordToWire, type Compression } from './wire.js';

/** How a {@link Producer} batches, sends and retries. */
export interface ProducerOptions {
  /**
   * How long a batch that is not full waits for more records, in milliseconds (default 0). With 0
   * it goes out at once when nothing of its partition is under way, and else gathers meanwhile.
   */
  lingerMs?: number | undefined;
  /** Bytes at which a batch is full (default 512 KiB). A larger record goes alone. */
  batchBytes?: number | undefined;
  /** Records at which a batch is full (default 10,000). */
  batchRecordsMax?: number | undefined;
  /** Bound of all records that are not acknowledged, in bytes (default 16 MiB). */
  bufferBytesMax?: number | undefined;
  /** Bound of one record, in bytes (default 1 MiB, as on the server). */
  recordBytesMax?: number | undefined;
  /** Most appends under way at once, over all partitions (default 3); of one partition there is one. */
  inFlightMax?: number | undefined;
  /** How long a record may take from `send` to its acknowledgement, in milliseconds (default 120,000). */
  deliveryTimeoutMs?: number | undefined;
  /** Whether the server recognises retries, so that none doubles a record (default true). */
  idempotence?: boolean | undefined;
  /** How the server compresses the batches (default none). */
  compression?: Compression | undefined;
  /** What an acknowledgement promises (default: what the topic says, which is also a floor). */
  durability?: Durability | undefined;
  /** How old what is known of a topic's partitions may become, in milliseconds (default 300,000). */
  metadataAgeMs?: number | undefined;
}

/** A record to produce. Its bytes are not copied: leave them alone until it is acknowledged. */
export interface ProducerRecord extends RecordInput {
  topic: string;
  /** Default: by the key as Kafka does, or without a key one that is kept for a whole batch. */
  partition?: number | undefined;
}

/** When to ask again for a topic that did not exist, in milliseconds. */
const MISSING_AGE_MS = 1_000;

/** What an encoded batch takes beside what its records count. */
const BATCH_OVERHEAD = 64;

/** What is known of a topic. */
interface Route {
  /** `undefined` until the server has said it. */
  partitions: number | undefined;
  /** Bytes of records that the topic takes in one batch, as far as known. */
  batchBytesMax: number | undefined;
  /** `performance.now()` from when on it is asked again. */
  staleAt: number;
  asking: Promise<void> | undefined;
  /** Records that wait for it. */
  waiting: Item[];
  /** Ends the wait of the oldest of them. */
  expiry?: ReturnType<typeof setTimeout>;
  /** Why it is not known yet. */
  failure?: ComlogError;
  /** Where records without a key go until their batch is sent. */
  sticky: number;
}

/**
 * Sends records in batches: those of one partition in the order of the calls, each exactly once,
 * over lost connections and restarts of the server, as long as the producer lives. Made by
 * `Client.producer`.
 */
export class Producer {
  readonly #context: LaneContext;
  readonly #bufferBytesMax: number;
  readonly #recordBytesMax: number;
  readonly #metadataAgeMs: number;
  readonly #onClose: () => void;
  readonly #abandoned = new AbortController();
  readonly #routes = new Map<string, Route>();
  readonly #lanes = new Map<string, Lane>();
  /** Records for which there is no room yet, in order. */
  readonly #line: Item[] = [];
  #lineBytes = 0;
  #buffered = { records: 0, bytes: 0 };
  #flights = new Set<{ done: Promise<void> }>();
  #flight = new Flight();
  #room: Deferred<void> | undefined;
  /** What `trySend` found no room for, in bytes: with less there is none. */
  #refused = 1;
  #firstFailure: ComlogError | undefined;
  #closed = false;

  /** @internal Use `Client.producer`. */
  constructor(calls: Calls, options: ProducerOptions, onClose: () => void) {
    const batchBytes = positive('batchBytes', checkObject('options', options).batchBytes ?? 512 << 10);
    this.#onClose = onClose;
    this.#recordBytesMax = positive('recordBytesMax', options.recordBytesMax ?? 1 << 20);
    this.#bufferBytesMax = positive('bufferBytesMax', options.bufferBytesMax ?? 16 << 20);
    this.#metadataAgeMs = positive('metadataAgeMs', options.metadataAgeMs ?? 300_000);
    this.#context = {
      calls,
      gate: new Gate(positive('inFlightMax', options.inFlightMax ?? 3)),
      batchBytes: (topic) => Math.min(batchBytes, this.#routes.get(topic)?.batchBytesMax ?? batchBytes),
      learn: (topic) => this.#learn(topic),
      batchRecordsMax: positive('batchRecordsMax', options.batchRecordsMax ?? 10_000),
      lingerMs: atLeast0('lingerMs', options.lingerMs ?? 0),
      deliveryTimeoutMs: positive('deliveryTimeoutMs', options.deliveryTimeoutMs ?? 120_000),
      idempotence: options.idempotence ?? true,
      compression: compressionToWire(options.compression),
      durability: durabilityToWire(options.durability),
      abandoned: this.#abandoned.signal,
      finished: (batch, error) => this.#finished(batch, error),
    };
    if (this.#bufferBytesMax < this.#recordBytesMax) {
      throw new ComlogError('INVALID_ARGUMENT', 'bufferBytesMax must be at least recordBytesMax');
    }
  }

  /** Records and bytes that are taken and not acknowledged. */
  get buffered(): { records: number; bytes: number } {
    return { ...this.#buffered };
  }

  /**
   * Sends a record; resolves when it is acknowledged. While the buffer is full it stands in line.
   * The promise may be dropped: what fails is then told by {@link Producer.flush}.
   *
   * An aborted signal takes the record back if it stands in line; later it only ends the wait.
   *
   * @throws ComlogError what the server refused it with; DEADLINE_EXCEEDED when it was not
   * acknowledged in time (it may be in the log or not); RESOURCE_EXHAUSTED when the line, too, is
   * as long as the buffer: wait for {@link Producer.ready}; INVALID_ARGUMENT, CANCELLED.
   */
  send(record: ProducerRecord, options: { signal?: AbortSignal | undefined } = {}): Promise<Delivered> {
    const { signal } = options;
    if (signal?.aborted) return Promise.reject(signal.reason);
    let item: Item;
    try {
      item = this.#item(record);
    } catch (error) {
      return Promise.reject(error);
    }
    if (this.#line.length === 0 && this.#fits(item)) this.#take(item);
    else if (!this.#standInLine(item)) return Promise.reject(this.#full('the line before the buffer is full'));
    if (signal === undefined) return item.delivered.promise;
    const onAbort = () => this.#takeBack(item, signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    const delivered = abortable(item.delivered.promise, signal);
    delivered.catch(() => {}).finally(() => signal.removeEventListener('abort', onAbort));
    return delivered;
  }

  /** As {@link Producer.send}, but takes the record only if there is room now; else `undefined`. */
  trySend(record: ProducerRecord): Promise<Delivered> | undefined {
    const item = this.#item(record);
    if (this.#line.length > 0 || !this.#fits(item)) {
      this.#refused = item.bytes;
      return undefined;
    }
    this.#refused = 1;
    this.#take(item);
    return item.delivered.promise;
  }

  /**
   * Resolves once there is room in the buffer, and for a record that {@link trySend} did not take: what a
   * loop that sends waits for.
   */
  async ready(options: { signal?: AbortSignal | undefined } = {}): Promise<void> {
    while (this.#isFull()) {
      this.#checkOpen();
      this.#room ??= deferred();
      await abortable(this.#room.promise, options.signal);
    }
  }

  /**
   * Sends what was gathered without more linger and waits until all of it is acknowledged.
   *
   * @throws ComlogError the first failure of any record since the last flush.
   */
  async flush(options: { signal?: AbortSignal | undefined } = {}): Promise<void> {
    const flight = { done: this.#flight.close() };
    this.#flight = new Flight();
    this.#flights.add(flight);
    void flight.done.then(() => this.#flights.delete(flight));
    for (const lane of this.#lanes.values()) lane.wake();
    await abortable(Promise.all([...this.#flights].map(({ done }) => done)), options.signal);
    const failure = this.#firstFailure;
    this.#firstFailure = undefined;
    if (failure !== undefined) throw failure;
  }

  /** Takes no more records and flushes. If the signal is aborted, what is left fails. */
  async close(options: { signal?: AbortSignal | undefined } = {}): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    try {
      await this.flush(options);
    } finally {
      this.abandon();
    }
  }

  /** As {@link Producer.close}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Ends at once: what is not acknowledged fails with CANCELLED, and may be in the log or not. */
  abandon(): void {
    this.#closed = true;
    const error = new ComlogError('CANCELLED', 'the producer was closed before the record was acknowledged');
    this.#abandoned.abort(error);
    // The line first: what follows makes room, and nobody shall be let in.
    for (const item of this.#line.splice(0)) {
      item.delivered.reject(error);
      item.flight?.finish();
    }
    this.#lineBytes = 0;
    for (const route of this.#routes.values()) {
      clearTimeout(route.expiry);
      this.#fail(route.waiting.splice(0), error);
    }
    for (const lane of this.#lanes.values()) {
      for (const batch of lane.abandon()) {
        batch.reject(error);
        this.#finished(batch, error);
      }
    }
    this.#room?.resolve();
    this.#onClose();
  }

  #item(record: ProducerRecord): Item {
    this.#checkOpen();
    checkPlace(checkObject('record', record));
    const { topic, partition } = record;
    const { wire, bytes } = recordToWire(record, BigInt(Date.now()));
    if (bytes > this.#recordBytesMax) {
      const message = `a record of ${bytes} bytes exceeds recordBytesMax (${this.#recordBytesMax})`;
      throw new ComlogError('INVALID_ARGUMENT', message, { topic, partition });
    }
    const delivered = deferred<Delivered>();
    return { topic, partition, wire, bytes, sentAt: performance.now(), delivered, flight: undefined };
  }

  #fits(item: Item): boolean {
    return this.#buffered.bytes + item.bytes <= this.#bufferBytesMax;
  }

  #isFull(): boolean {
    return this.#line.length > 0 || this.#buffered.bytes + this.#refused > this.#bufferBytesMax;
  }

  #standInLine(item: Item): boolean {
    if (this.#lineBytes + item.bytes > this.#bufferBytesMax) return false;
    this.#line.push(item);
    this.#lineBytes += item.bytes;
    this.#joinFlight(item);
    return true;
  }

  /** An aborted record: out of the line, if it is there still. */
  #takeBack(item: Item, reason: unknown): void {
    const index = this.#line.indexOf(item);
    if (index < 0) return;
    this.#line.splice(index, 1);
    this.#lineBytes -= item.bytes;
    item.flight?.finish();
    item.delivered.reject(reason);
    this.#admit();
  }

  #joinFlight(item: Item): void {
    item.flight = this.#flight;
    item.flight.add();
  }

  /** Takes a record into the buffer, and on to its partition as soon as that is known. */
  #take(item: Item): void {
    if (item.flight === undefined) this.#joinFlight(item);
    this.#buffered.records += 1;
    this.#buffered.bytes += item.bytes;
    const route = item.partition === undefined ? this.#route(item.topic) : undefined;
    if (route !== undefined && route.partitions === undefined) this.#wait(item, route);
    else this.#assign(item, route);
  }

  /** Keeps a record until its topic is known, or its time is over. */
  #wait(item: Item, route: Route): void {
    if (route.waiting.push(item) === 1) this.#expireIn(this.#leftMs(item), route);
  }

  #expireIn(ms: number, route: Route): void {
    route.expiry = setTimeout(() => {
      const { deliveryTimeoutMs } = this.#context;
      const fresh = route.waiting.findIndex((item) => this.#leftMs(item) > 0);
      const late = route.waiting.splice(0, fresh < 0 ? Infinity : fresh);
      if (route.waiting.length > 0) this.#expireIn(this.#leftMs(route.waiting[0] as Item), route);
      this.#fail(late, timedOut(deliveryTimeoutMs, route.failure));
    }, timerMs(ms));
  }

  #leftMs(item: Item): number {
    return item.sentAt + this.#context.deliveryTimeoutMs - performance.now();
  }

  #assign(item: Item, route: Route | undefined): void {
    const partition = item.partition ?? this.#choose(item, route);
    this.#lane(item.topic, partition).add(item);
  }

  #choose({ topic, wire }: Item, route: Route | undefined): number {
    const partitions = route?.partitions ?? 1;
    if (wire.key !== undefined) return partitionForKey(wire.key, partitions);
    if (route === undefined || partitions === 1) return 0;
    if (route.sticky >= partitions || !this.#lane(topic, route.sticky).isGathering) {
      route.sticky = Math.floor(Math.random() * partitions);
    }
    return route.sticky;
  }

  #lane(topic: string, partition: number): Lane {
    const key = `${partition}/${topic}`;
    let lane = this.#lanes.get(key);
    if (lane === undefined) {
      lane = new Lane(this.#context, topic, partition);
      this.#lanes.set(key, lane);
    }
    return lane;
  }

  #route(topic: string): Route {
    let route = this.#routes.get(topic);
    if (route === undefined) {
      const nothing = { partitions: undefined, batchBytesMax: undefined, asking: undefined };
      route = { ...nothing, staleAt: 0, waiting: [], sticky: 0 };
      this.#routes.set(topic, route);
    }
    if (performance.now() >= route.staleAt) route.asking ??= this.#ask(topic, route);
    return route;
  }

  /** Asks how many partitions a topic has. One that does not exist is made by its first record. */
  async #ask(topic: string, route: Route): Promise<void> {
    const { signal } = this.#abandoned;
    try {
      const { calls, deliveryTimeoutMs } = this.#context;
      const until = performance.now() + deliveryTimeoutMs;
      const { topic: found, effective } = await this.#askUntil(until, topic, calls, signal);
      route.partitions = partitionsOf(found);
      const bytesMax = effective?.maxBatchBytes ?? 0;
      route.batchBytesMax = bytesMax > 0 ? Math.max(bytesMax - BATCH_OVERHEAD, 1) : undefined;
      route.staleAt = performance.now() + this.#metadataAgeMs;
    } catch (reason) {
      if (signal.aborted) return;
      const error = fromCall(reason);
      route.staleAt = performance.now() + MISSING_AGE_MS;
      if (error.reason === 'TOPIC_NOT_FOUND') route.partitions ??= 1;
      else if (route.partitions === undefined) this.#fail(route.waiting.splice(0), error);
    } finally {
      route.asking = undefined;
      clearTimeout(route.expiry);
    }
    for (const item of route.waiting.splice(0)) this.#assign(item, route);
  }

  /** Asks anew, after a batch of the topic was too large. Never fails. */
  #learn(topic: string): Promise<void> {
    const known = this.#routes.get(topic);
    if (known !== undefined) known.staleAt = 0;
    return this.#route(topic).asking ?? Promise.resolve();
  }

  async #askUntil(until: number, topic: string, calls: Calls, signal: AbortSignal): Promise<DescribeTopicResponse> {
    for (;;) {
      try {
        const call = (call: object) => calls.topics.describeTopic({ name: topic }, call);
        return await calls.again(call, { signal });
      } catch (reason) {
        const error = fromCall(reason);
        if (!error.retryable || calls.closed.aborted || performance.now() >= until) throw error;
        const route = this.#routes.get(topic);
        if (route !== undefined) route.failure = error;
        await sleep(calls.settings.retry.backoffMaxMs, signal);
      }
    }
  }

  #finished(batch: Batch, error: ComlogError | undefined): void {
    if (error !== undefined) this.#firstFailure ??= error;
    this.#release(batch.items);
  }

  /** Records that never came to a partition. */
  #fail(items: readonly Item[], error: ComlogError): void {
    if (items.length === 0) return;
    this.#firstFailure ??= error;
    for (const item of items) item.delivered.reject(error);
    this.#release(items);
  }

  #release(items: readonly Item[]): void {
    for (const item of items) {
      this.#buffered.records -= 1;
      this.#buffered.bytes -= item.bytes;
      item.flight?.finish();
    }
    this.#admit();
  }

  /** Lets in from the line what there is room for. */
  #admit(): void {
    for (let first = this.#line[0]; first !== undefined && this.#fits(first); first = this.#line[0]) {
      this.#line.shift();
      this.#lineBytes -= first.bytes;
      this.#take(first);
    }
    if (this.#isFull()) return;
    this.#room?.resolve();
    this.#room = undefined;
  }

  #full(message: string): ComlogError {
    return new ComlogError('RESOURCE_EXHAUSTED', `${message}: ${this.#bufferBytesMax} bytes wait (bufferBytesMax)`, {
      reason: 'BUFFER_FULL',
    });
  }

  #checkOpen(): void {
    if (this.#closed) throw new ComlogError('CANCELLED', 'the producer is closed');
  }
}
