/// <reference lib="esnext.disposable" preserve="true" />
/** A log in memory. */

import { checkBytes as checkUint8Array, checkObject } from '../check.js';
import { ComlogError } from '../error.js';
import { toTimestamp, type LogRecord, type RecordInput } from '../record.js';
import { checkCompression, producerNumbers, type Compression, type ProducerIds } from './batch.js';
import { Frame, checkBytes, checkOffset, invalid, pack } from './frame.js';
import type { WasmMemoryLog } from './glue.js';
import { Instance } from './instance.js';

const MIB = 1 << 20;
/** An instance addresses 4 GiB, of which the log may take so much. */
const BYTES_MAX = 3 * 1024 * MIB;

export interface OpenOptions {
  /** Most bytes of encoded batches kept; the oldest segments go, whole. Default: 64 MiB. */
  bytesMax?: number | undefined;
  /** Bytes of a segment, the unit in which the oldest go. Default: an eighth of `bytesMax`. */
  segmentBytesMax?: number | undefined;
  /** Most bytes of one batch. Default: 8 MiB. */
  batchBytesMax?: number | undefined;
  /** Whose clock stamps the records. Default: `create`, the caller's. */
  timestampType?: 'create' | 'append' | undefined;
}

export interface AppendOptions {
  /** Default: `none`. */
  compression?: Compression | undefined;
  /** Append only if this is the end offset of the log. */
  expectedOffset?: bigint | undefined;
  /** Lets the log recognise a batch that is appended again. */
  producer?: ProducerIds | undefined;
}

/** Where records were put. */
export interface Appended {
  /** Of the first record. */
  baseOffset: bigint;
  /** Behind the last (exclusive). */
  nextOffset: bigint;
  /** Whether the records were in the log already, by their producer's sequence. */
  duplicate: boolean;
  /** The append time, on a log that stamps it. */
  timestamp: bigint | undefined;
}

export interface TailOptions {
  /** The first record: an offset, the start of the log, or (default) what is appended from now on. */
  from?: bigint | 'earliest' | 'latest' | undefined;
  /** Ends the tail: its `next()` rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
  /**
   * When the log has dropped what comes next, because the tail is slower than the appends: end with
   * OUT_OF_RANGE (default), or go on with what is left.
   */
  outOfRange?: 'error' | 'earliest' | undefined;
}

export interface SegmentStats {
  baseOffset: bigint;
  /** Exclusive. */
  endOffset: bigint;
  bytes: number;
  /** The largest timestamp in it, when it is known. */
  maxTimestamp: bigint | undefined;
  sealed: boolean;
}

export interface Stats {
  /** The first offset that can be read. */
  startOffset: bigint;
  /** The offset that the next record gets. */
  endOffset: bigint;
  /** Of encoded batches. */
  bytes: number;
  bytesMax: number;
  /** Of the WebAssembly instance, which holds the log and nothing else. */
  memoryBytes: number;
  segments: SegmentStats[];
}

/**
 * A log in memory: the engine of the server, in a WebAssembly instance of its own, so that
 * {@link close} gives all its memory back. The calls are synchronous: what `append` returned can be
 * read. Errors are {@link ComlogError}s; a defect inside the WebAssembly is INTERNAL and closes the log.
 */
export class MemoryLog implements Disposable {
  #instance: Instance | undefined;
  #log: WasmMemoryLog | undefined;
  /** Why the log ended, when nobody closed it. */
  #defect: ComlogError | undefined;
  /** Tails that wait for an append, or the end. */
  readonly #waiting = new Set<() => void>();

  private constructor(instance: Instance, log: WasmMemoryLog) {
    this.#instance = instance;
    this.#log = log;
  }

  /**
   * Opens an empty log. Needs `init()` before.
   *
   * @throws ComlogError INVALID_ARGUMENT, or FAILED_PRECONDITION before `init()`
   */
  static async open(options: OpenOptions = {}): Promise<MemoryLog> {
    const bytesMax = checkBytes(options.bytesMax ?? 64 * MIB, 'bytesMax', BYTES_MAX);
    const eighth = Math.max(1, Math.floor(bytesMax / 8));
    const segment = checkBytes(options.segmentBytesMax ?? eighth, 'segmentBytesMax', BYTES_MAX);
    const batch = checkBytes(options.batchBytesMax ?? 8 * MIB, 'batchBytesMax', 512 * MIB);
    const stamps = options.timestampType === 'append';
    const instance = await Instance.open();
    const log = instance.call((glue) => new glue.MemoryLog(bytesMax, segment, batch, stamps));
    return new MemoryLog(instance, log);
  }

  /** Whether the log was closed, by {@link close} or by a defect. */
  get closed(): boolean {
    return this.#log === undefined;
  }

  /**
   * Appends records as one batch, all or none.
   *
   * @throws ComlogError INVALID_ARGUMENT; FAILED_PRECONDITION (UNEXPECTED_OFFSET, with the actual end
   * as `offset`; OUT_OF_ORDER_SEQUENCE); RESOURCE_EXHAUSTED when they exceed the whole budget
   */
  append(records: RecordInput | Iterable<RecordInput>, options: AppendOptions = {}): Appended {
    checkObject('records', records);
    const frame = pack(Symbol.iterator in records ? records : [records]);
    const compression = checkCompression(options.compression);
    const expected = checkExpected(options);
    const [id, epoch, sequence] = producerNumbers(options.producer);
    return this.#append((log) => log.append(frame, compression, expected, id, epoch, sequence));
  }

  /**
   * Appends whole encoded batches, back to back, as a server or {@link readBatches} gave them; they
   * get new offsets. All are checked before any is appended.
   *
   * @throws ComlogError as `append`; when a producer's sequence is at fault, the batches before it
   * have been appended
   */
  appendBatches(encoded: Uint8Array, options: Pick<AppendOptions, 'expectedOffset'> = {}): Appended {
    const expected = checkExpected(options);
    checkUint8Array('encoded', encoded);
    return this.#append((log) => log.appendBatches(encoded, expected));
  }

  #append(append: (log: WasmMemoryLog) => BigInt64Array): Appended {
    const [base, next, duplicate, timestamp] = this.#call(append);
    for (const wake of [...this.#waiting]) wake();
    return {
      baseOffset: base!,
      nextOffset: next!,
      duplicate: duplicate === 1n,
      timestamp: timestamp === -1n ? undefined : timestamp,
    };
  }

  /**
   * The records from offset `from` on, about `maxBytes` (default 1 MiB) of them; none at the end of
   * the log. Read on at `nextOffset`. Keys and values are views of one buffer: `slice()` what is kept
   * for long.
   *
   * @throws ComlogError OUT_OF_RANGE, with the nearer end of the log as `offset`
   */
  read(from: bigint, options: { maxBytes?: number | undefined } = {}): { records: LogRecord[]; nextOffset: bigint } {
    const [offset, maxBytes] = readArguments(from, options);
    const frame = new Frame(this.#call((log) => log.read(offset, maxBytes)));
    return { records: frame.records(frame.recordCount), nextOffset: frame.says[0]! };
  }

  /**
   * Whole encoded batches from the one that holds `from` on: `bytes` is empty at the end of the log.
   * `baseOffset` is the first batch's, which may lie before `from`.
   *
   * @throws ComlogError as {@link read}
   */
  readBatches(
    from: bigint,
    options: { maxBytes?: number | undefined } = {},
  ): { bytes: Uint8Array; baseOffset: bigint; nextOffset: bigint } {
    const [offset, maxBytes] = readArguments(from, options);
    const answer = this.#call((log) => log.readBatches(offset, maxBytes));
    const { says } = new Frame(answer);
    return { bytes: answer.subarray(64), baseOffset: says[0]!, nextOffset: says[1]! };
  }

  /** The first record at or after a time (Unix milliseconds), if there is one. */
  offsetForTimestamp(
    timestamp: bigint | number | Date,
  ): { offset: bigint; timestamp: bigint } | undefined {
    const time = toTimestamp(timestamp);
    const [offset, found] = this.#call((log) => log.offsetForTimestamp(time));
    return offset === undefined ? undefined : { offset, timestamp: found! };
  }

  /**
   * Follows the log: its records, then those that will be appended. Ends when the log is closed.
   *
   * @throws ComlogError OUT_OF_RANGE; INTERNAL when the log ended by a defect
   */
  tail(options: TailOptions = {}): AsyncIterableIterator<LogRecord> {
    const { from = 'latest', signal, outOfRange = 'error' } = options;
    const [start, end] = this.#positions();
    const first = from === 'earliest' ? start : from === 'latest' ? end : checkOffset(from, 'from');
    return this.#follow(first, signal, outOfRange);
  }

  async *#follow(
    from: bigint,
    signal: AbortSignal | undefined,
    outOfRange: 'error' | 'earliest',
  ): AsyncIterableIterator<LogRecord> {
    let next = from;
    for (;;) {
      signal?.throwIfAborted();
      if (this.closed) {
        if (this.#defect) throw this.#defect;
        return;
      }
      const [start, end] = this.#positions();
      if (outOfRange === 'earliest' && next < start) next = start;
      if (next === end) {
        await this.#changed(signal);
        continue;
      }
      const { records, nextOffset } = this.read(next);
      for (const record of records) {
        signal?.throwIfAborted();
        yield record;
      }
      next = nextOffset;
    }
  }

  /** Resolves at the next append, close or abort. */
  #changed(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        this.#waiting.delete(wake);
        signal?.removeEventListener('abort', wake);
        resolve();
      };
      this.#waiting.add(wake);
      signal?.addEventListener('abort', wake);
    });
  }

  /**
   * Drops what lies before `start`, which becomes the first offset that can be read; returns it.
   *
   * @throws ComlogError OUT_OF_RANGE beyond the end
   */
  trim(start: bigint): bigint {
    const offset = checkOffset(start, 'start');
    return this.#call((log) => log.trim(offset));
  }

  #positions(): [bigint, bigint] {
    const [start, end] = this.#call((log) => log.positions());
    return [start!, end!];
  }

  /** Where the log stands and what it takes. */
  stats(): Stats {
    const numbers = this.#call((log) => log.stats());
    const segments: SegmentStats[] = [];
    for (let at = 4; at < numbers.length; at += 5) {
      const [baseOffset, endOffset, bytes, maxTimestamp, sealed] = numbers.subarray(at, at + 5);
      segments.push({
        baseOffset: baseOffset!,
        endOffset: endOffset!,
        bytes: Number(bytes),
        maxTimestamp: maxTimestamp === -1n ? undefined : maxTimestamp,
        sealed: sealed === 1n,
      });
    }
    return {
      startOffset: numbers[0]!,
      endOffset: numbers[1]!,
      bytes: Number(numbers[2]),
      bytesMax: Number(numbers[3]),
      memoryBytes: this.#instance?.memoryBytes ?? 0,
      segments,
    };
  }

  /**
   * The content of one segment as its file would be, readable by {@link Segment} and by
   * `comlog inspect`; {@link stats} names the segments. Its name is the base offset in 20 digits
   * and `.log`.
   *
   * @throws ComlogError INVALID_ARGUMENT when no segment begins there
   */
  exportSegment(baseOffset: bigint): Uint8Array {
    const base = checkOffset(baseOffset, 'baseOffset');
    return this.#call((log) => log.exportSegment(base));
  }

  /** Ends the log and its tails, and lets go of all its memory. */
  close(): void {
    this.#log = undefined;
    this.#instance = undefined;
    for (const wake of [...this.#waiting]) wake();
  }

  /** The same as {@link close}. */
  free(): void {
    this.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #call<T>(body: (log: WasmMemoryLog) => T): T {
    const [instance, log] = [this.#instance, this.#log];
    if (!instance || !log) {
      throw this.#defect ?? new ComlogError('FAILED_PRECONDITION', 'the log is closed');
    }
    try {
      return instance.call(() => body(log));
    } finally {
      if (instance.ended) {
        this.#defect = instance.ended;
        this.close();
      }
    }
  }
}

function checkExpected({ expectedOffset }: AppendOptions): bigint | undefined {
  return expectedOffset === undefined ? undefined : checkOffset(expectedOffset, 'expectedOffset');
}

function readArguments(from: bigint, { maxBytes = MIB }: { maxBytes?: number | undefined }): [bigint, number] {
  if (typeof from !== 'bigint') throw invalid('from is a bigint');
  return [checkOffset(from, 'from'), checkBytes(maxBytes, 'maxBytes', 16 * MIB)];
}
