/** Topics as callers see them, and how they travel. */
import type { MessageInitShape } from '@bufbuild/protobuf';

import {
  Durability as WireDurability,
  TimestampType as WireTimestampType,
  Validation as WireValidation,
} from './gen/comlog/v1/common_pb.js';
import type {
  DescribeTopicResponse,
  PartitionInfo as WirePartitionInfo,
  Topic as WireTopic,
  TopicConfig as WireTopicConfig,
  TopicConfigSchema,
} from './gen/comlog/v1/topic_pb.js';
import { check, checkInteger, checkObject, isInt64 } from './check.js';
import { ComlogError } from './error.js';

/** What an acknowledgement promises: `memory` is written, `durable` synced to the disk. */
export type Durability = 'memory' | 'durable';

/** The configuration of a topic. What is absent follows the server's configuration. */
export interface TopicConfig {
  /** A segment is rolled before it exceeds this; at least 1 MiB. */
  segmentBytes?: bigint | number | undefined;
  /** A segment is rolled when its first record is this old, in milliseconds; -1 never. */
  segmentMs?: bigint | number | undefined;
  /** The oldest sealed segments are deleted while a partition is larger; -1 never. */
  retentionBytes?: bigint | number | undefined;
  /** Sealed segments are deleted when their newest record is older, in milliseconds; -1 never. */
  retentionMs?: bigint | number | undefined;
  /** The largest batch accepted. */
  maxBatchBytes?: number | undefined;
  durability?: Durability | undefined;
  /** Whose clock stamps the records: the producer's (`create`) or the server's (`append`). */
  timestampType?: 'create' | 'append' | undefined;
  /** How much of an encoded batch the server checks: its header, or every record. */
  validation?: 'header' | 'full' | undefined;
  /** Whether sealed segments go to the archive, where the server has one. */
  archive?: boolean | undefined;
  /** Local copies of archived segments are removed while a partition has more bytes; 0 keeps only what is
   * not archived yet, -1 all. */
  localRetentionBytes?: bigint | number | undefined;
  /** Local copies of archived segments are removed when their newest record is older, in milliseconds;
   * -1 never. */
  localRetentionMs?: bigint | number | undefined;
}

export interface Topic {
  name: string;
  /** 32 hex digits, random, never used again. */
  id: string;
  partitions: number;
  /** Only what was set; the rest follows the server. */
  config: TopicConfig;
  createdAt: Date;
}

/** A half-open range of offsets. */
export interface OffsetRange {
  start: bigint;
  end: bigint;
}

/** Where a partition stands. */
export interface PartitionInfo {
  partition: number;
  /** The first offset. */
  logStartOffset: bigint;
  /** What readers see ends here (exclusive). */
  highWatermark: bigint;
  /** What a crash cannot take back ends here (exclusive). */
  durableOffset: bigint;
  logEndOffset: bigint;
  leaderEpoch: number;
  sizeBytes: bigint;
  segments: number;
  fencingToken: bigint;
  /** Why the partition takes no appends; absent when it does. */
  failure: string | undefined;
  /** Offsets known to be damaged. */
  damaged: OffsetRange[];
}

export interface TopicDescription {
  topic: Topic;
  /** The configuration in force, every field set. */
  effective: TopicConfig;
  partitions: PartitionInfo[];
}

export function topicFromWire(topic: WireTopic | undefined): Topic {
  if (topic === undefined) throw incomplete('a topic');
  partitionsOf(topic);
  return {
    name: topic.name,
    id: topic.id,
    partitions: topic.partitions,
    config: configFromWire(topic.config),
    createdAt: new Date(Number(topic.createdMs)),
  };
}

/** Above the most partitions that a server takes. */
const PARTITIONS_MAX = 1e6;

/** How many partitions a topic has. */
export function partitionsOf(topic: WireTopic | undefined): number {
  const partitions = topic?.partitions ?? 0;
  if (partitions > 0 && partitions <= PARTITIONS_MAX) return partitions;
  throw nonsense(`a topic of ${partitions} partitions`);
}

export function descriptionFromWire(described: DescribeTopicResponse): TopicDescription {
  return {
    topic: topicFromWire(described.topic),
    effective: configFromWire(described.effective),
    partitions: described.partitions.map(partitionFromWire),
  };
}

/** The fields of a configuration that are integers of 64 bits. */
const SIZES_AND_TIMES = [
  'segmentBytes',
  'segmentMs',
  'retentionBytes',
  'retentionMs',
  'localRetentionBytes',
  'localRetentionMs',
] as const;

function int64(name: string, value: bigint | number): bigint {
  const is = typeof value === 'bigint' ? isInt64(value) : Number.isSafeInteger(value);
  return BigInt(check(is, name, 'an integer', value));
}

export function configToWire(config: TopicConfig | undefined): MessageInitShape<typeof TopicConfigSchema> {
  const wire: MessageInitShape<typeof TopicConfigSchema> = {};
  if (config === undefined) return wire;
  checkObject('config', config);
  for (const name of SIZES_AND_TIMES) {
    const value = config[name];
    if (value !== undefined) wire[name] = int64(`config.${name}`, value);
  }
  const { maxBatchBytes, archive } = config;
  if (maxBatchBytes !== undefined) wire.maxBatchBytes = checkInteger('config.maxBatchBytes', maxBatchBytes);
  wire.durability = durabilityToWire(config.durability);
  wire.timestampType = toWire(TIMESTAMP_TYPES, config.timestampType);
  wire.validation = toWire(VALIDATIONS, config.validation);
  if (archive !== undefined) wire.archive = check(typeof archive === 'boolean', 'config.archive', 'a boolean', archive);
  return wire;
}

export function durabilityToWire(durability: Durability | undefined): WireDurability {
  return toWire(DURABILITIES, durability);
}

function configFromWire(wire: WireTopicConfig | undefined): TopicConfig {
  const config: TopicConfig = {};
  if (wire === undefined) return config;
  for (const name of SIZES_AND_TIMES) {
    const value = wire[name];
    if (value !== undefined) config[name] = value;
  }
  if (wire.maxBatchBytes !== undefined) config.maxBatchBytes = wire.maxBatchBytes;
  const durability = fromWire(DURABILITIES, wire.durability);
  if (durability !== undefined) config.durability = durability;
  const timestampType = fromWire(TIMESTAMP_TYPES, wire.timestampType);
  if (timestampType !== undefined) config.timestampType = timestampType;
  const validation = fromWire(VALIDATIONS, wire.validation);
  if (validation !== undefined) config.validation = validation;
  if (wire.archive !== undefined) config.archive = wire.archive;
  return config;
}

function partitionFromWire(wire: WirePartitionInfo): PartitionInfo {
  return {
    partition: wire.partition,
    logStartOffset: wire.logStartOffset,
    highWatermark: wire.highWatermark,
    durableOffset: wire.durableOffset,
    logEndOffset: wire.logEndOffset,
    leaderEpoch: wire.leaderEpoch,
    sizeBytes: wire.sizeBytes,
    segments: wire.segments,
    fencingToken: wire.fencingToken,
    failure: wire.failure === '' ? undefined : wire.failure,
    damaged: wire.damaged.map(({ start, end }) => ({ start, end })),
  };
}

const DURABILITIES = {
  memory: WireDurability.MEMORY,
  durable: WireDurability.DURABLE,
} as const;

const TIMESTAMP_TYPES = {
  create: WireTimestampType.CREATE_TIME,
  append: WireTimestampType.LOG_APPEND_TIME,
} as const;

const VALIDATIONS = {
  header: WireValidation.HEADER,
  full: WireValidation.FULL,
} as const;

/** The number of a name; 0 (unspecified) for an absent one. */
function toWire<K extends string, V extends number>(names: Record<K, V>, name: K | undefined): V | 0 {
  if (name === undefined) return 0;
  const value = names[name];
  if (value !== undefined) return value;
  const known = Object.keys(names).join(', ');
  throw new ComlogError('INVALID_ARGUMENT', `"${String(name)}" is none of ${known}`);
}

function fromWire<K extends string>(names: Record<K, number>, value: number): K | undefined {
  return (Object.keys(names) as K[]).find((name) => names[name] === value);
}

/** The server said what cannot be. */
export function nonsense(what: string): ComlogError {
  return new ComlogError('INTERNAL', `the answer of the server contradicts itself: ${what}`);
}

/** The server left something out that it always sends. */
export function incomplete(what: string): ComlogError {
  return new ComlogError('INTERNAL', `the answer of the server lacks ${what}`);
}
