import { check, checkBytes, isInt64 } from './check.js';

/** Bytes, or text that is sent as UTF-8. */
export type BytesLike = Uint8Array | string;

/** A named value beside a record, to be written. */
export interface HeaderInput {
  name: BytesLike;
  value?: BytesLike | null;
}

/** A record to be written. Absent (or `null`) is not the same as empty, for key and value alike. */
export interface RecordInput {
  /** What it is partitioned by. */
  key?: BytesLike | null | undefined;
  /** The payload; absent is a tombstone. */
  value?: BytesLike | null | undefined;
  /** In order; names may repeat. */
  headers?: readonly HeaderInput[] | undefined;
  /** Unix milliseconds; default: the time of the call. */
  timestamp?: bigint | number | Date | undefined;
}

/** A named value beside a record. */
export interface Header {
  name: string;
  value: Uint8Array | null;
}

/** A record as it stands in a partition. */
export interface LogRecord {
  /** Where it stands, from 0. */
  offset: bigint;
  /** Unix milliseconds. */
  timestamp: bigint;
  key: Uint8Array | null;
  value: Uint8Array | null;
  headers: Header[];
}

const encoder = new TextEncoder();

/** The bytes of `value`, which stands in the field called `name`; text becomes UTF-8. */
export function toBytes(value: BytesLike, name = 'key'): Uint8Array {
  return typeof value === 'string' ? encoder.encode(value) : checkBytes(name, value);
}

/** Unix milliseconds. */
export function toTimestamp(value: bigint | number | Date): bigint {
  const ms = value instanceof Date ? value.getTime() : value;
  const whole = Number.isFinite(ms) ? BigInt(Math.trunc(ms as number)) : (ms as bigint);
  const is = typeof whole === 'bigint' && isInt64(whole);
  return check(is, 'timestamp', 'a Date, or Unix milliseconds as a number or bigint', whole);
}

/** A topic and one of its partitions, counted from 0. */
export interface TopicPartition {
  topic: string;
  partition: number;
}

/** A record and where it stands. */
export interface ConsumerRecord extends LogRecord, TopicPartition {}
