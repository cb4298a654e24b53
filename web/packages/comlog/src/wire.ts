/** Records and positions as they travel. */
import type { MessageInitShape } from '@bufbuild/protobuf';

import { ComlogError } from './error.js';
import type { Piece } from './feed.js';
import { Compression as WireCompression, type Record as WireRecord, type RecordSchema } from './gen/comlog/v1/common_pb.js';
import type { StartAtSchema } from './gen/comlog/v1/common_pb.js';
import type { Appended as WireAppended, Fetched } from './gen/comlog/v1/log_pb.js';
import { checkList, checkObject, checkOffset, invalid } from './check.js';
import { toBytes, toTimestamp, type BytesLike, type LogRecord, type RecordInput } from './record.js';
import { incomplete, nonsense } from './topic.js';

/** How the server compresses a batch. */
export type Compression = 'none' | 'gzip' | 'snappy' | 'lz4' | 'zstd';

/** Where to start in a partition. A bare `bigint` is an offset, a bare `Date` a time. */
export type StartAt =
  | 'earliest'
  | 'latest'
  | bigint
  | Date
  | { offset: bigint }
  | { timestamp: bigint | number | Date };

/** Where a batch stands. */
export interface Appended {
  /** Offset of its first record. */
  baseOffset: bigint;
  /** Offset behind its last record. */
  nextOffset: bigint;
  /** Unix milliseconds, on topics that stamp it. */
  appendTime: bigint | undefined;
  /** The batch was in the log already. */
  duplicate: boolean;
  /** A sync has covered it. */
  durable: boolean;
}

/** More than a record takes beside its own bytes, on the wire and in memory. */
const RECORD_OVERHEAD = 64;

type RecordInit = MessageInitShape<typeof RecordSchema>;

/** A record ready to be sent, and how many bytes it counts. */
export function recordToWire(record: RecordInput, now: bigint): { wire: RecordInit; bytes: number } {
  checkObject('record', record);
  let bytes = RECORD_OVERHEAD;
  const take = (name: string, value: BytesLike): Uint8Array<ArrayBuffer> => {
    const taken = toBytes(value, name) as Uint8Array<ArrayBuffer>;
    bytes += taken.length;
    return taken;
  };
  const { timestamp } = record;
  const wire: RecordInit = { timestampMs: timestamp === undefined ? now : toTimestamp(timestamp) };
  if (record.key != null) wire.key = take('key', record.key);
  if (record.value != null) wire.value = take('value', record.value);
  if (record.headers !== undefined) {
    wire.headers = checkList('headers', record.headers).map((header) => {
      const { name, value } = checkObject('a header', header);
      bytes += RECORD_OVERHEAD;
      const text = typeof name === 'string' ? name : new TextDecoder().decode(toBytes(name, 'header.name'));
      bytes += text.length;
      return value == null ? { name: text } : { name: text, value: take('header.value', value) };
    });
  }
  return { wire, bytes };
}

/** Records of one partition as they were fetched, none of which may lie before `from`. */
export function pieceFromWire(fetched: Fetched | undefined, from = 0n): Piece {
  if (fetched === undefined) throw incomplete('what was fetched');
  let bytes = 0;
  let next = from;
  // What was compacted leaves gaps, but nothing goes back.
  const take = (offset: bigint, end: bigint) => {
    if (offset < next) throw nonsense(`offset ${offset} where ${next} is due`);
    next = end;
  };
  const records = fetched.records.map((wire) => {
    bytes += sizeOf(wire);
    take(wire.offset, wire.offset + 1n);
    return recordFromWire(wire);
  });
  take(fetched.nextOffset, 0n);
  const { nextOffset, logStartOffset, highWatermark } = fetched;
  return { records, nextOffset, logStartOffset, highWatermark, bytes };
}

function recordFromWire(wire: WireRecord): LogRecord {
  return {
    offset: wire.offset,
    timestamp: wire.timestampMs ?? -1n,
    key: wire.key ?? null,
    value: wire.value ?? null,
    headers: wire.headers.map(({ name, value }) => ({ name, value: value ?? null })),
  };
}

function sizeOf(wire: WireRecord): number {
  let bytes = RECORD_OVERHEAD + (wire.key?.length ?? 0) + (wire.value?.length ?? 0);
  for (const { name, value } of wire.headers) bytes += RECORD_OVERHEAD + name.length + (value?.length ?? 0);
  return bytes;
}

/** Where `count` records were put, if so many are known. */
export function appendedFromWire(appended: WireAppended | undefined, count?: number): Appended {
  if (appended === undefined) throw incomplete('where the batch stands');
  const { baseOffset, nextOffset, appendTimeMs, duplicate, durable } = appended;
  const placed = nextOffset - baseOffset;
  if (baseOffset < 0n || placed <= 0n || (count !== undefined && placed !== BigInt(count))) {
    throw nonsense(`the batch stands at ${baseOffset} to ${nextOffset}`);
  }
  return { baseOffset, nextOffset, appendTime: appendTimeMs, duplicate, durable };
}

export function startToWire(at: StartAt): MessageInitShape<typeof StartAtSchema> {
  if (at === 'earliest') return { at: { case: 'earliest', value: {} } };
  if (at === 'latest') return { at: { case: 'latest', value: {} } };
  if (typeof at === 'bigint') return { at: { case: 'offset', value: checkOffset('at', at) } };
  if (at instanceof Date) return { at: { case: 'timestampMs', value: toTimestamp(at) } };
  const isObject = typeof at === 'object' && at !== null;
  if (isObject && 'offset' in at) return { at: { case: 'offset', value: checkOffset('at.offset', at.offset) } };
  if (isObject && 'timestamp' in at) {
    return { at: { case: 'timestampMs', value: toTimestamp(at.timestamp) } };
  }
  throw invalid('at', 'a place to start at', at);
}

/** The offset that `at` names by itself, if it does. */
export function startOffset(at: StartAt): bigint | undefined {
  if (typeof at === 'bigint') return at;
  return typeof at === 'object' && 'offset' in at ? at.offset : undefined;
}

const COMPRESSIONS: Record<Compression, WireCompression> = {
  none: WireCompression.NONE,
  gzip: WireCompression.GZIP,
  snappy: WireCompression.SNAPPY,
  lz4: WireCompression.LZ4,
  zstd: WireCompression.ZSTD,
};

export function compressionToWire(compression: Compression | undefined): WireCompression {
  const wire = COMPRESSIONS[compression ?? 'none'];
  if (wire !== undefined) return wire;
  throw new ComlogError('INVALID_ARGUMENT', `there is no compression "${String(compression)}"`);
}
