/** Record batches by themselves. */

import { checkBytes as checkUint8Array } from '../check.js';
import type { LogRecord, RecordInput } from '../record.js';
import { Frame, checkBytes, checkOffset, invalid, pack } from './frame.js';
import { Instance } from './instance.js';

/** How the records of a batch are compressed. All are read; `zstd` cannot be written here. */
export type Compression = 'none' | 'gzip' | 'snappy' | 'lz4' | 'zstd';

const COMPRESSIONS: readonly Compression[] = ['none', 'gzip', 'snappy', 'lz4', 'zstd'];

/** What makes a batch idempotent: who sent it, and the number of its first record. */
export interface ProducerIds {
  id: bigint;
  epoch: number;
  sequence: number;
}

/** What the header of a batch says. */
export interface BatchInfo {
  baseOffset: bigint;
  /** Behind the last record (exclusive). */
  nextOffset: bigint;
  /** Of the whole batch, encoded. */
  bytes: number;
  recordCount: number;
  compression: Compression;
  /** Whose clock stamped the records: their producer's, or the log's at the append. */
  timestampType: 'create' | 'append';
  /** A marker of the log's own, which consumers skip. */
  control: boolean;
  leaderEpoch: number;
  baseTimestamp: bigint;
  maxTimestamp: bigint;
  /** -1n when the producer is not idempotent. */
  producerId: bigint;
  producerEpoch: number;
  baseSequence: number;
  crc: number;
}

/** A batch and its records. */
export interface Batch extends BatchInfo {
  records: LogRecord[];
}

export interface EncodeOptions {
  /** Default: `none`. */
  compression?: Compression | undefined;
  /** Default: 0n. A log gives the batch its own. */
  baseOffset?: bigint | undefined;
  producer?: ProducerIds | undefined;
}

let shared: Instance | undefined;

/** The instance of the calls that keep nothing in it. */
function stateless(): Instance {
  if (!shared || shared.ended) shared = Instance.openSync();
  return shared;
}

/**
 * Encodes records as one batch of Kafka's format v2, at most 8 MiB.
 *
 * @throws ComlogError INVALID_ARGUMENT
 */
export function encodeBatch(records: Iterable<RecordInput>, options: EncodeOptions = {}): Uint8Array {
  const frame = pack(records);
  const compression = checkCompression(options.compression);
  const base = checkOffset(options.baseOffset ?? 0n, 'baseOffset');
  const [id, epoch, sequence] = producerNumbers(options.producer);
  return stateless().call((glue) => glue.encodeBatch(frame, compression, base, id, epoch, sequence));
}

/**
 * Decodes whole batches, back to back. Keys and values are views of one buffer: `slice()` what is
 * kept for long.
 *
 * @throws ComlogError INVALID_ARGUMENT: the bytes are no such batches, whole and undamaged; or their
 * records take more than 256 MiB, or one more than 64 MiB (BATCH_TOO_LARGE): see {@link decodeRecords}
 */
export function decodeBatches(bytes: Uint8Array): Batch[] {
  checkUint8Array('bytes', bytes);
  const frame = new Frame(stateless().call((glue) => glue.decodeBatches(bytes)));
  return Array.from({ length: frame.itemCount }, (_, index) => {
    const numbers = frame.item(index);
    return { ...batchInfo(numbers), records: frame.records(Number(numbers[5])) };
  });
}

/**
 * Decodes records of whole batches, back to back, from offset `from` (default: all) on, about
 * `maxBytes` (default 1 MiB) of them: for batches that decompress to more than can be held. Read on at
 * `nextOffset`, until that is `undefined`. Each call decompresses from the beginning of its batch, so
 * larger pieces cost less.
 *
 * @throws ComlogError INVALID_ARGUMENT: the bytes are no such batches; or the first record is larger
 * than 64 MiB (BATCH_TOO_LARGE, its `offset`), and can be stepped over to `nextOffset`
 */
export function decodeRecords(
  bytes: Uint8Array,
  options: { from?: bigint | undefined; maxBytes?: number | undefined } = {},
): { records: LogRecord[]; nextOffset: bigint | undefined } {
  const { from = 0n, maxBytes = 1 << 20 } = options;
  const [offset, most] = [checkOffset(from, 'from'), checkBytes(maxBytes, 'maxBytes', 256 << 20)];
  checkUint8Array('bytes', bytes);
  const frame = new Frame(stateless().call((glue) => glue.decodeRecords(bytes, offset, most)));
  const next = frame.says[0]!;
  return { records: frame.records(frame.recordCount), nextOffset: next < 0n ? undefined : next };
}

/** The header of a batch from the numbers of its item. */
export function batchInfo(numbers: BigInt64Array): BatchInfo {
  const attributes = Number(numbers[7]);
  return {
    baseOffset: numbers[3]!,
    nextOffset: numbers[4]!,
    bytes: Number(numbers[2]! - numbers[1]!),
    recordCount: Number(numbers[6]),
    compression: COMPRESSIONS[attributes & 7] ?? 'none',
    timestampType: attributes & 8 ? 'append' : 'create',
    control: (attributes & 32) !== 0,
    leaderEpoch: Number(numbers[8]),
    baseTimestamp: numbers[9]!,
    maxTimestamp: numbers[10]!,
    producerId: numbers[11]!,
    producerEpoch: Number(numbers[12]),
    baseSequence: Number(numbers[13]),
    crc: Number(numbers[14]),
  };
}

export function checkCompression(compression: Compression = 'none'): Compression {
  if (compression === 'zstd') throw invalid('zstd is read but not written here: use lz4, snappy or gzip');
  if (COMPRESSIONS.includes(compression)) return compression;
  throw invalid(`compression is one of ${COMPRESSIONS.join(', ')}, not ${String(compression)}`);
}

/** Id, epoch and sequence as WebAssembly takes them: -1 is nobody. */
export function producerNumbers(producer: ProducerIds | undefined): [bigint, number, number] {
  if (!producer) return [-1n, -1, -1];
  const { id, epoch, sequence } = producer;
  const fits = (value: number, max: number) => Number.isInteger(value) && value >= 0 && value <= max;
  if (!fits(epoch, 32767)) throw invalid('producer.epoch is an integer from 0 to 32767');
  if (!fits(sequence, 2 ** 31 - 1)) throw invalid('producer.sequence is an integer from 0 to 2^31 - 1');
  return [checkOffset(id, 'producer.id'), epoch, sequence];
}
