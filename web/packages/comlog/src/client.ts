/// <reference lib="esnext.disposable" preserve="true" />
import {
  appendBatches,
  fetchOnce,
  readBatches,
  type AppendBatchesRequest,
  type BatchesRead,
  type ReadRequest,
} from './batches.js';
import { Calls } from './calls.js';
import { check, checkInteger, checkList, checkOffset, checkPlace, checkText } from './check.js';
import { Consumer, type ConsumerOptions, type Assignment } from './consumer.js';
import type { Connection, Feed } from './feed.js';
import { Form } from './gen/comlog/v1/log_pb.js';
import { commitOffsets, committedOffsets, type CommittedOffset, type GroupOffset } from './groups.js';
import { settle, type CallOptions, type ClientOptions } from './options.js';
import { Producer, type ProducerOptions } from './producer.js';
import type { ConsumerRecord, RecordInput, TopicPartition } from './record.js';
import { TailHub } from './tail-hub.js';
import {
  configToWire,
  descriptionFromWire,
  durabilityToWire,
  nonsense,
  topicFromWire,
  type Durability,
  type Topic,
  type TopicConfig,
  type TopicDescription,
} from './topic.js';
import {
  appendedFromWire,
  compressionToWire,
  pieceFromWire,
  recordToWire,
  startToWire,
  type Appended,
  type Compression,
  type StartAt,
} from './wire.js';

/** What `Client.append` appends. */
export interface AppendRequest {
  topic: string;
  /** Default: 0. */
  partition?: number | undefined;
  /** At least one. */
  records: readonly RecordInput[];
  compression?: Compression | undefined;
  /** Default: the topic's, which is also a floor. */
  durability?: Durability | undefined;
  /** Refuse with UNEXPECTED_OFFSET unless the log ends here. */
  expectedOffset?: bigint | undefined;
  /** The partition's token, once one was set. */
  fencingToken?: bigint | undefined;
}

/** What was read. */
export interface ReadResult {
  records: ConsumerRecord[];
  /** Where to read on. */
  nextOffset: bigint;
  logStartOffset: bigint;
  highWatermark: bigint;
}

/** One question of `Client.listOffsets`. */
export interface OffsetQuery {
  topic: string;
  /** Default: 0. */
  partition?: number | undefined;
  /** Default: latest. */
  at?: StartAt | undefined;
}

/** Its answer. */
export interface OffsetFound extends TopicPartition {
  /** The high watermark when no record is so late. */
  offset: bigint;
  /** Of the record found by timestamp. */
  timestamp: bigint | undefined;
  logStartOffset: bigint;
  highWatermark: bigint;
}

/**
 * A server. Making one does nothing yet: connections are opened when they are needed.
 *
 * Calls that may be made twice are repeated while that may help; the others are made once.
 */
export class Client {
  readonly #calls: Calls;
  readonly #options: ClientOptions;
  readonly #producers = new Set<Producer>();
  readonly #consumers = new Set<Consumer>();
  #feed: Feed | undefined;

  /** @throws ComlogError INVALID_ARGUMENT for options that cannot be used. */
  constructor(options: ClientOptions = {}) {
    this.#options = options;
    this.#calls = new Calls(settle(options));
  }

  /** Where the server is. */
  get url(): string {
    return this.#calls.settings.url;
  }

  /** How the live stream is doing. */
  get connection(): Connection {
    return this.#feed?.connection ?? { state: 'idle' };
  }

  /** Sends records in batches, in order per partition, each exactly once. */
  producer(options: ProducerOptions = {}): Producer {
    this.#checkOpen();
    const producer = new Producer(this.#calls, options, () => this.#producers.delete(producer));
    this.#producers.add(producer);
    return producer;
  }

  /** Reads partitions from any place on, and goes on live. */
  consumer(options: ConsumerOptions = {}): Consumer {
    this.#checkOpen();
    const consumer = new Consumer(this.#calls, this.#live(), options, () => this.#consumers.delete(consumer));
    this.#consumers.add(consumer);
    return consumer;
  }

  /**
   * Follows partitions until the loop is left or the signal aborted: a consumer of its own.
   *
   * @throws ComlogError as {@link Consumer.poll}; an aborted signal rejects with its reason.
   */
  async *tail(
    from: Assignment | readonly Assignment[],
    options: ConsumerOptions & { signal?: AbortSignal | undefined } = {},
  ): AsyncGenerator<ConsumerRecord, void, undefined> {
    const consumer = this.consumer(options);
    try {
      consumer.assign(Array.isArray(from) ? from : [from as Assignment]);
      yield* consumer.records({ signal: options.signal });
    } finally {
      await consumer.close();
    }
  }

  /** Appends records as one batch, atomically. Made once: without a producer a retry could double it. */
  async append(request: AppendRequest, options?: CallOptions): Promise<Appended> {
    const now = BigInt(Date.now());
    checkPlace(request);
    const { topic, partition = 0, records, expectedOffset, fencingToken } = request;
    if (expectedOffset !== undefined) checkOffset('expectedOffset', expectedOffset);
    const message = {
      topic,
      partition,
      records: checkList('records', records).map((record) => recordToWire(record, now).wire),
      compression: compressionToWire(request.compression),
      durability: durabilityToWire(request.durability),
      ...(expectedOffset === undefined ? {} : { expectedOffset }),
      ...(fencingToken === undefined ? {} : { fencingToken }),
    };
    const { appended } = await this.#calls.once((call) => this.#calls.logs.append(message, call), options);
    return appendedFromWire(appended, records.length);
  }

  /** Reads from exactly an offset on. */
  async read(request: ReadRequest, options?: CallOptions): Promise<ReadResult> {
    const { topic, partition = 0 } = request;
    const fetched = await fetchOnce(this.#calls, request, Form.RECORDS, options);
    const { records, nextOffset, logStartOffset, highWatermark } = pieceFromWire(fetched, request.offset);
    const placed = records.map((record) => ({ ...record, topic, partition }));
    return { records: placed, nextOffset, logStartOffset, highWatermark };
  }

  /**
   * Appends record batches as they are encoded, compressed ones too. Made once, as {@link append}.
   *
   * @returns where each stands, in order
   * @throws ComlogError for the first that was refused: those before it are in the log, none behind it is
   */
  appendBatches(request: AppendBatchesRequest, options?: CallOptions): Promise<Appended[]> {
    return appendBatches(this.#calls, request, options);
  }

  /** Reads record batches as they are stored; `decodeBatches` of `comlog/log` opens them. */
  readBatches(request: ReadRequest, options?: CallOptions): Promise<BatchesRead> {
    return readBatches(this.#calls, request, options);
  }

  /** Finds offsets: earliest, latest, or by time. One answer per query, in order. */
  async listOffsets(queries: readonly OffsetQuery[], options?: CallOptions): Promise<OffsetFound[]> {
    const message = {
      queries: checkList('queries', queries).map((query) => {
        checkPlace(query);
        const { topic, partition = 0, at = 'latest' } = query;
        return { topic, partition, at: startToWire(at) };
      }),
    };
    const { offsets } = await this.#calls.again((call) => this.#calls.logs.listOffsets(message, call), options);
    const isAnswer = ({ topic, partition }: TopicPartition, at: number) =>
      topic === queries[at]?.topic && partition === message.queries[at]?.partition;
    if (offsets.length !== queries.length || !offsets.every(isAnswer)) throw nonsense('other offsets than asked for');
    return offsets.map(({ topic, partition, offset, timestampMs, logStartOffset, highWatermark }) => {
      return { topic, partition, offset: known(offset), timestamp: timestampMs, logStartOffset, highWatermark };
    });
  }

  /** Raises the log start offset; records below it are gone. Durable on return: the new start. */
  async trim(topic: string, partition: number, offset: bigint, options?: CallOptions): Promise<bigint> {
    const message = placed(topic, partition, { offset: checkOffset('offset', offset) });
    const trimmed = await this.#calls.again((call) => this.#calls.logs.trim(message, call), options);
    return known(trimmed.logStartOffset);
  }

  /** Makes everything written so far durable: below the offset returned. */
  async sync(topic: string, partition: number, options?: CallOptions): Promise<bigint> {
    const message = placed(topic, partition, {});
    const synced = await this.#calls.again((call) => this.#calls.logs.sync(message, call), options);
    return known(synced.durableOffset);
  }

  /**
   * Sets the fencing token of a partition: from now on an append that does not carry it is refused with
   * FENCED. Durable on return.
   *
   * @param token above the current one, which is 0 before the first; else STALE_FENCING_TOKEN
   * @returns where the log ended when it took effect
   */
  async fence(topic: string, partition: number, token: bigint, options?: CallOptions): Promise<bigint> {
    const message = placed(topic, partition, { token: check(typeof token === 'bigint', 'token', 'a bigint', token) });
    const fenced = await this.#calls.once((call) => this.#calls.logs.fence(message, call), options);
    return known(fenced.logEndOffset);
  }

  /** Creates a topic. With `ifNotExists` one that is there already is left as it is. */
  async createTopic(
    name: string,
    options: {
      /** Default: the server's. */
      partitions?: number | undefined;
      config?: TopicConfig | undefined;
      ifNotExists?: boolean | undefined;
    } & CallOptions = {},
  ): Promise<Topic> {
    const { partitions = 0, config, ifNotExists = false } = options;
    checkText('name', name);
    checkInteger('partitions', partitions);
    const message = { name, partitions, config: configToWire(config), ifNotExists };
    const call = (call: object) => this.#calls.topics.createTopic(message, call);
    const created = await (ifNotExists ? this.#calls.again(call, options) : this.#calls.once(call, options));
    return topicFromWire(created.topic);
  }

  /** Every topic, by name. */
  async listTopics(
    options: {
      /** Also those that comlog keeps for itself. */
      includeInternal?: boolean | undefined;
    } & CallOptions = {},
  ): Promise<Topic[]> {
    const message = { includeInternal: options.includeInternal ?? false };
    const { topics } = await this.#calls.again((call) => this.#calls.topics.listTopics(message, call), options);
    return topics.map(topicFromWire);
  }

  /** One topic and where its partitions stand. */
  async describeTopic(name: string, options?: CallOptions): Promise<TopicDescription> {
    checkText('name', name);
    const described = await this.#calls.again((call) => this.#calls.topics.describeTopic({ name }, call), options);
    return descriptionFromWire(described);
  }

  /** Changes the configuration of a topic, or adds partitions; keys then map to other ones. */
  async alterTopic(
    name: string,
    change: {
      config?: TopicConfig | undefined;
      /** Fields that shall follow the server's configuration again. */
      reset?: readonly (keyof TopicConfig)[] | undefined;
      partitions?: number | undefined;
    },
    options?: CallOptions,
  ): Promise<{ topic: Topic; warnings: string[] }> {
    const { config, reset = [], partitions } = change;
    const message = {
      name: checkText('name', name),
      config: configToWire(config),
      reset: checkList('reset', reset).map((field) => checkText('reset', field).replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)),
      ...(partitions === undefined ? {} : { partitions: checkInteger('partitions', partitions, 1) }),
    };
    const altered = await this.#calls.once((call) => this.#calls.topics.alterTopic(message, call), options);
    return { topic: topicFromWire(altered.topic), warnings: altered.warnings };
  }

  /** Deletes a topic and its records. */
  async deleteTopic(name: string, options?: CallOptions): Promise<void> {
    checkText('name', name);
    await this.#calls.once((call) => this.#calls.topics.deleteTopic({ name }, call), options);
  }

  /** Commits offsets of a group, all or none. Durable on return. */
  async commitOffsets(group: string, offsets: readonly GroupOffset[], options?: CallOptions): Promise<void> {
    await commitOffsets(this.#calls, group, offsets, options);
  }

  /** What a group has committed, for these partitions or all; empty for a group that never did. */
  committedOffsets(
    group: string,
    partitions: readonly TopicPartition[] = [],
    options?: CallOptions,
  ): Promise<CommittedOffset[]> {
    return committedOffsets(this.#calls, group, partitions, options);
  }

  /** Every group that has committed something, by name. */
  async listGroups(options?: CallOptions): Promise<string[]> {
    const { groups } = await this.#calls.again((call) => this.#calls.groups.listGroups({}, call), options);
    return groups;
  }

  /** Forgets what a group has committed. */
  async deleteGroup(group: string, options?: CallOptions): Promise<void> {
    checkText('group', group);
    await this.#calls.once((call) => this.#calls.groups.deleteGroup({ group }, call), options);
  }

  /**
   * Ends everything: consumers commit if they do so by themselves, producers fail what is not
   * acknowledged (close those first), calls under way reject with CANCELLED.
   */
  async close(): Promise<void> {
    await Promise.allSettled([...this.#consumers].map((consumer) => consumer.close()));
    for (const producer of this.#producers) producer.abandon();
    this.#calls.close();
    this.#feed?.close();
  }

  /** As {@link Client.close}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #live(): Feed {
    const { tail = TailHub.over, onConnection = () => {} } = this.#options;
    this.#feed ??= tail(this.#calls.settings, onConnection);
    return this.#feed;
  }

  #checkOpen(): void {
    this.#calls.closed.throwIfAborted();
  }
}

/** What a call about one partition says. */
function placed<T>(topic: string, partition: number, more: T): T & TopicPartition {
  checkPlace({ topic, partition });
  return { topic, partition, ...more };
}

/** An offset that the server said. */
function known(offset: bigint): bigint {
  if (offset < 0n) throw nonsense(`offset ${offset}`);
  return offset;
}
