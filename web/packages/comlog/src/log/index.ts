/**
 * The log itself, in WebAssembly: a log in memory, record batches, segment files. Importing it does
 * nothing; call and await {@link init} before anything else.
 */
import { load, type WasmSource } from './instance.js';

export { ComlogError } from '../error.js';
export type { Code, ErrorDetails, Reason } from '../error.js';
export type { BytesLike, Header, HeaderInput, LogRecord, RecordInput } from '../record.js';
export { ArchivedPartition } from './archive.js';
export type { ArchivedReadOptions, ArchivedSegment } from './archive.js';
export { decodeBatches, decodeRecords, encodeBatch } from './batch.js';
export type { Batch, BatchInfo, Compression, EncodeOptions, ProducerIds } from './batch.js';
export type { WasmSource } from './instance.js';
export { MemoryLog } from './memory-log.js';
export type { AppendOptions, Appended, OpenOptions, SegmentStats, Stats, TailOptions } from './memory-log.js';
export { Segment } from './segment.js';
export type { Damage, ScanOptions, SegmentBatch, SegmentItem, SegmentOptions, Zeros } from './segment.js';
export { httpSource } from './source.js';
export type { HttpOptions, RangeSource, SegmentSource } from './source.js';

/**
 * Loads and compiles the WebAssembly, once, however often it is called.
 *
 * @param source default: `comlog.wasm` beside this module, which bundlers find by its URL
 * @throws ComlogError UNAVAILABLE; a later call tries again
 */
export function init(source?: WasmSource): Promise<void> {
  return load(() => source ?? new URL('../comlog.wasm', import.meta.url));
}
