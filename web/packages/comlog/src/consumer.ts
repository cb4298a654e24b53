/// <reference lib="esnext.disposable" preserve="true" />
import { Gate, abortable, deferred, timerMs, type Deferred } from './abort.js';
import type { Calls } from './calls.js';
import { check, checkList, checkPlace, checkText } from './check.js';
import { Committer } from './committer.js';
import { Cursor, type CursorContext } from './cursor.js';
import { ComlogError } from './error.js';
import type { Feed } from './feed.js';
import { committedOffsets, type CommittedOffset, type GroupOffset } from './groups.js';
import { positive, type CallOptions } from './options.js';
import type { ConsumerRecord, TopicPartition } from './record.js';
import { atLeast0 } from './retry.js';
import { TopicWatch } from './topic-watch.js';
import { startToWire, type StartAt } from './wire.js';

/** How a {@link Consumer} starts, buffers and commits. */
export interface ConsumerOptions {
  /** Under which name offsets are committed. Every consumer of a group reads everything. */
  group?: string | undefined;
  /** Where to start when neither the assignment nor a commit says (default `latest`). */
  start?: StartAt | undefined;
  /**
   * What to do where the log does not reach to (any more): throw OFFSET_OUT_OF_RANGE (the default),
   * or go on from its beginning or end.
   */
  outOfRange?: 'error' | 'earliest' | 'latest' | undefined;
  /** How often positions are committed by themselves, in milliseconds; default: never. */
  autoCommitMs?: number | undefined;
  /**
   * How much is fetched ahead, in bytes (default 8 MiB); every partition may exceed it by one
   * fetch of at most 1 MiB or one batch.
   */
  prefetchBytes?: number | undefined;
  /** How often subscribed topics are asked for new partitions, in milliseconds (default 30,000). */
  metadataAgeMs?: number | undefined;
}

/** What to read, and from where. */
export interface Assignment {
  topic: string;
  /** Default: all partitions, also those added later. */
  partition?: number | undefined;
  /** Default: what the group has committed, else `ConsumerOptions.start`. */
  at?: StartAt | undefined;
}

/** How a consumer stands in one partition. */
export interface Assigned extends TopicPartition {
  /** The next offset to hand out, once known. */
  position: bigint | undefined;
  /** Behind the last visible record, as far as known. */
  highWatermark: bigint | undefined;
  paused: boolean;
}

const MAX_RECORDS = 500;
const OUT_OF_RANGE: readonly string[] = ['error', 'earliest', 'latest'];
/** Reads under way at once, of one consumer. */
const READS_MAX = 2;

/**
 * Reads partitions, each record once and in order, from any place on and then live, over lost
 * connections and restarts of the server. Made by `Client.consumer`.
 */
export class Consumer {
  readonly #calls: Calls;
  readonly #options: ConsumerOptions;
  readonly #prefetchBytes: number;
  readonly #context: CursorContext;
  readonly #committer: Committer;
  readonly #topics: TopicWatch;
  readonly #onClose: () => void;
  readonly #cursors = new Map<string, Cursor>();
  /** Partitions added after their topic was: they start at their beginning. */
  readonly #late = new Set<string>();
  #buffered = 0;
  #errors: ComlogError[] = [];
  #arrival: Deferred<void> | undefined;
  #space: Deferred<void> | undefined;
  #closed = false;
  #known: { at: number; offsets: Promise<CommittedOffset[]> } | undefined;

  /** @internal Use `Client.consumer`. */
  constructor(calls: Calls, feed: Feed, options: ConsumerOptions, onClose: () => void) {
    const { group, autoCommitMs, start, outOfRange = 'error' } = options;
    if (group !== undefined) checkText('group', group);
    if (autoCommitMs !== undefined) positive('autoCommitMs', autoCommitMs);
    if (start !== undefined) startToWire(start);
    check(OUT_OF_RANGE.includes(outOfRange), 'outOfRange', `one of ${OUT_OF_RANGE.join(', ')}`, outOfRange);
    if (autoCommitMs !== undefined && group === undefined) {
      throw new ComlogError('INVALID_ARGUMENT', 'autoCommitMs needs a group');
    }
    this.#calls = calls;
    this.#options = options;
    this.#onClose = onClose;
    this.#prefetchBytes = positive('prefetchBytes', options.prefetchBytes ?? 8 << 20);
    this.#committer = new Committer(calls, group, autoCommitMs, () => this.#positions());
    this.#topics = new TopicWatch(calls, positive('metadataAgeMs', options.metadataAgeMs ?? 30_000), {
      added: (topic, partition, at, late) => {
        if (late) this.#late.add(keyOf({ topic, partition }));
        this.#add(topic, partition, at);
      },
      failed: (error) => this.#report(error),
    });
    this.#context = {
      calls,
      feed,
      reads: new Gate(READS_MAX),
      outOfRange,
      start: (topic, partition) => this.#start(topic, partition),
      room: (signal) => this.#room(signal),
      changed: (bytes) => this.#changed(bytes),
    };
  }

  /** Also reads these. A partition that is read already goes on at the given place, if one is given. */
  assign(assignments: readonly Assignment[]): void {
    this.#checkOpen();
    for (const assignment of checkList('assignments', assignments)) {
      checkPlace(assignment);
      if (assignment.at !== undefined) startToWire(assignment.at);
    }
    for (const { topic, partition, at } of assignments) {
      if (partition === undefined) this.#topics.add(topic, at);
      else this.#add(topic, partition, at);
    }
  }

  /** Also reads all partitions of these topics; partitions added later from their beginning. */
  subscribe(topics: readonly string[]): void {
    this.assign(checkList('topics', topics).map((topic) => ({ topic })));
  }

  /** Reads these no longer; without an argument, nothing. */
  unassign(partitions?: readonly TopicPartition[]): void {
    if (partitions === undefined) this.#topics.clear();
    for (const cursor of this.#select(partitions)) {
      cursor.close();
      this.#cursors.delete(keyOf(cursor));
    }
  }

  /** What is read, and how far. */
  get assignment(): Assigned[] {
    return [...this.#cursors.values()].map(({ topic, partition, position, highWatermark, paused }) => {
      return { topic, partition, position, highWatermark, paused };
    });
  }

  /**
   * Waits for records: those that are there, at most `maxRecords` (default 500), or none once
   * `timeoutMs` has passed (default: waits as long as it takes). Records of one partition come in
   * order. Nothing is lost when it is aborted.
   *
   * @throws ComlogError once for every partition that cannot be read on, after all records before
   * that place: OFFSET_OUT_OF_RANGE, CORRUPT (its `offset` says where reading can go on),
   * TOPIC_NOT_FOUND and so on. That partition rests until it is sought; the others go on.
   * Lost connections are no errors: it waits until they are back.
   */
  async poll(
    options: { timeoutMs?: number | undefined; maxRecords?: number | undefined; signal?: AbortSignal | undefined } = {},
  ): Promise<ConsumerRecord[]> {
    const { timeoutMs, maxRecords = MAX_RECORDS, signal } = options;
    if (timeoutMs !== undefined) atLeast0('timeoutMs', timeoutMs);
    positive('maxRecords', maxRecords);
    const deadline = timeoutMs === undefined ? undefined : Date.now() + timeoutMs;
    this.#committer.handedOutIsDone();
    for (;;) {
      signal?.throwIfAborted();
      this.#checkOpen();
      const records = this.#take(maxRecords);
      if (records.length > 0) return records;
      this.#throwError();
      if (!(await this.#waitForArrival(deadline, signal))) return [];
    }
  }

  /** Record after record, until the loop is left or the signal aborted. */
  async *records(
    options: { signal?: AbortSignal | undefined } = {},
  ): AsyncGenerator<ConsumerRecord, void, undefined> {
    // One at a time, so that positions never run ahead of the loop.
    for (;;) yield* await this.poll({ maxRecords: 1, signal: options.signal });
  }

  /** As {@link Consumer.records}. */
  [Symbol.asyncIterator](): AsyncGenerator<ConsumerRecord, void, undefined> {
    return this.records();
  }

  /** Goes on from there; also ends a failure of the partition. */
  seek(topic: string, partition: number, at: StartAt): void {
    startToWire(at);
    this.#cursor(topic, partition).seek(at);
  }

  /** Hands out no more records of these, or of all. What is fetched already is kept. */
  pause(partitions?: readonly TopicPartition[]): void {
    for (const cursor of this.#select(partitions)) cursor.pause();
  }

  /** Goes on with these, or with all. */
  resume(partitions?: readonly TopicPartition[]): void {
    for (const cursor of this.#select(partitions)) cursor.resume();
  }

  /** The next offset to be handed out, once known. */
  position(topic: string, partition: number): bigint | undefined {
    return this.#cursor(topic, partition).position;
  }

  /** Commits these offsets, by default behind everything handed out. Durable on return; in order. */
  async commit(offsets: readonly GroupOffset[] = this.#positions(), options?: CallOptions): Promise<void> {
    await this.#committer.commit(offsets, options);
  }

  /** What the group has committed for the partitions that are read. */
  async committed(options?: CallOptions): Promise<CommittedOffset[]> {
    const partitions = this.assignment.map(({ topic, partition }) => ({ topic, partition }));
    return committedOffsets(this.#calls, this.#committer.group, partitions, options);
  }

  /** Ends it; commits first if it does so by itself. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#topics.clear();
    const positions = this.#positions();
    for (const cursor of this.#cursors.values()) cursor.close();
    this.#changed(0);
    try {
      await this.#committer.close(positions);
    } finally {
      this.#onClose();
    }
  }

  /** As {@link Consumer.close}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #add(topic: string, partition: number, at: StartAt | undefined): void {
    const key = keyOf({ topic, partition });
    const cursor = this.#cursors.get(key);
    if (cursor === undefined) this.#cursors.set(key, new Cursor(this.#context, topic, partition, at));
    else if (at !== undefined) cursor.seek(at);
  }

  /** Takes what is there; the partition that was served last comes last. */
  #take(max: number): ConsumerRecord[] {
    const records: ConsumerRecord[] = [];
    for (const [key, cursor] of [...this.#cursors]) {
      if (records.length >= max) break;
      const before = records.length;
      cursor.take(max, records);
      if (records.length > before) {
        this.#cursors.delete(key);
        this.#cursors.set(key, cursor);
      }
    }
    return records;
  }

  #throwError(): void {
    const error = this.#errors.shift();
    if (error !== undefined) throw error;
    for (const cursor of this.#cursors.values()) {
      const failed = cursor.takeError();
      if (failed !== undefined) throw failed;
    }
  }

  /** Waits until something changes; `false` when the time is over. */
  async #waitForArrival(deadline: number | undefined, signal: AbortSignal | undefined): Promise<boolean> {
    const waitMs = deadline === undefined ? undefined : deadline - Date.now();
    if (waitMs !== undefined && waitMs <= 0) return false;
    this.#arrival ??= deferred();
    const { promise } = this.#arrival;
    const timer = waitMs === undefined ? undefined : setTimeout(() => this.#changed(0), timerMs(waitMs));
    try {
      await abortable(promise, signal);
    } finally {
      clearTimeout(timer);
    }
    return true;
  }

  #changed(bytes: number): void {
    this.#buffered += bytes;
    this.#arrival?.resolve();
    this.#arrival = undefined;
    if (this.#buffered >= this.#prefetchBytes) return;
    this.#space?.resolve();
    this.#space = undefined;
  }

  async #room(signal: AbortSignal): Promise<void> {
    while (this.#buffered >= this.#prefetchBytes) {
      this.#space ??= deferred();
      await abortable(this.#space.promise, signal);
    }
  }

  #report(error: ComlogError): void {
    this.#errors.push(error);
    this.#changed(0);
  }

  /** Where a partition starts that nothing was said about. */
  async #start(topic: string, partition: number): Promise<StartAt> {
    const { group } = this.#options;
    const late = this.#late.has(keyOf({ topic, partition }));
    const start = late ? 'earliest' : (this.#options.start ?? 'latest');
    if (group === undefined) return start;
    const offsets = await this.#committedByGroup(group);
    const found = offsets.find((committed) => committed.topic === topic && committed.partition === partition);
    return found?.offset ?? start;
  }

  /** Asked once for partitions that start together. */
  #committedByGroup(group: string): Promise<CommittedOffset[]> {
    const now = Date.now();
    if (this.#known === undefined || now - this.#known.at > COMMITTED_AGE_MS_MAX) {
      this.#known = { at: now, offsets: committedOffsets(this.#calls, group, []) };
      this.#known.offsets.catch(() => (this.#known = undefined));
    }
    return this.#known.offsets;
  }

  #positions(): GroupOffset[] {
    return [...this.#cursors.values()].flatMap(({ topic, partition, position }) => {
      return position === undefined ? [] : [{ topic, partition, offset: position }];
    });
  }

  #cursor(topic: string, partition: number): Cursor {
    const cursor = this.#cursors.get(keyOf({ topic, partition }));
    if (cursor !== undefined) return cursor;
    throw new ComlogError('INVALID_ARGUMENT', `the consumer does not read ${topic}/${partition}`, { topic, partition });
  }

  #select(partitions: readonly TopicPartition[] | undefined): Cursor[] {
    if (partitions === undefined) return [...this.#cursors.values()];
    return partitions.map(({ topic, partition }) => this.#cursor(topic, partition));
  }

  #checkOpen(): void {
    if (this.#closed) throw new ComlogError('CANCELLED', 'the consumer is closed');
  }
}

/** What was committed before that may be out of date. */
const COMMITTED_AGE_MS_MAX = 1_000;

function keyOf({ topic, partition }: TopicPartition): string {
  return `${partition}/${topic}`;
}
