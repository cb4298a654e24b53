/// <reference lib="esnext.disposable" preserve="true" />
/** A segment file: dropped onto a page, or fetched. */

import { ComlogError } from '../error.js';
import type { LogRecord } from '../record.js';
import { batchInfo, type BatchInfo } from './batch.js';
import { Frame, checkOffset } from './frame.js';
import type { WasmSegment } from './glue.js';
import { Instance } from './instance.js';
import { offsetOfName, rangesOf, type RangeSource, type SegmentSource } from './source.js';

/** Bytes of records taken from WebAssembly at once. */
const PAGE_BYTES = 1 << 20;

export interface SegmentOptions {
  /** The offset in the file's name; taken from the name when the source is a `File`. */
  baseOffset?: bigint | undefined;
  /** The content of the segment's `.index` file, to find offsets without reading what is before. */
  index?: Uint8Array | undefined;
}

export interface ScanOptions {
  /** What lies before this offset is left out. */
  from?: bigint | undefined;
  signal?: AbortSignal | undefined;
}

/** A batch of a segment. */
export interface SegmentBatch extends BatchInfo {
  kind: 'batch';
  /** Of its first byte. */
  position: number;
  /**
   * All of them; or, when they are larger than is held at once, the next of them: the batch comes again
   * with the others. Keys and values are views of one buffer: `slice()` what is kept for long.
   */
  records: LogRecord[];
  /** Whether the next item is this batch again, with records after these. */
  more: boolean;
  /**
   * Why a record after these is not given, though the checksum is right. It is larger than 64 MiB
   * (BATCH_TOO_LARGE), and those after it follow in the next item; or it cannot be read, nor can the rest
   * of the batch (CORRUPT). Reading goes on at its `nextOffset`.
   */
  error: ComlogError | undefined;
  /** The offset that `error` is about. */
  errorOffset: bigint | undefined;
}

/** Bytes that are no valid batch. */
export interface Damage {
  kind: 'damage';
  /** Positions in bytes; `end` is exclusive. */
  start: number;
  end: number;
  /** The first offset that may be lost. */
  firstOffset: bigint;
  /** Where offsets go on; `undefined` when nothing valid follows. */
  nextOffset: bigint | undefined;
  reason: string;
}

/** Zeros to the end of the file: allocated ahead by a writer that did not seal the segment. */
export interface Zeros {
  kind: 'zeros';
  start: number;
  end: number;
}

export type SegmentItem = SegmentBatch | Damage | Zeros;

/** Where a scan goes on. */
interface Place {
  position: number;
  offset: bigint;
}

/**
 * A segment file (`.log`) of comlog, or of Kafka's format v2. Bytes are read when they are needed,
 * in ranges of a multiple of 256 KiB, of which 8 MiB are kept. Nothing in the file is trusted.
 */
export class Segment implements Disposable {
  /** In bytes. */
  readonly size: number;
  readonly #source: RangeSource;
  readonly #base: bigint | undefined;
  #instance: Instance | undefined;
  #segment: WasmSegment | undefined;
  /** The last operation: they take turns. */
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(source: RangeSource, base: bigint | undefined, instance: Instance) {
    this.size = source.size;
    this.#source = source;
    this.#base = base;
    this.#instance = instance;
    this.#segment = instance.call((glue) => new glue.Segment(source.size));
  }

  /**
   * Opens a segment; reads nothing yet. Needs `init()` before.
   *
   * @throws ComlogError INVALID_ARGUMENT, or FAILED_PRECONDITION before `init()`
   */
  static async open(source: SegmentSource, options: SegmentOptions = {}): Promise<Segment> {
    const ranges = rangesOf(source);
    const { index, baseOffset = offsetOfName((source as { name?: unknown }).name) } = options;
    const base = baseOffset === undefined ? undefined : checkOffset(baseOffset, 'baseOffset');
    const segment = new Segment(ranges, base, await Instance.open());
    if (index) segment.#call((inner) => inner.useIndex(index));
    return segment;
  }

  get closed(): boolean {
    return this.#segment === undefined;
  }

  /**
   * Goes through the file from front to back: batches, and what is damaged between them. Behind
   * damage it goes on where the next valid batch begins.
   *
   * @throws ComlogError when the source fails or the segment is closed; damage is an item
   */
  async *scan(options: ScanOptions = {}): AsyncIterableIterator<SegmentItem> {
    const { signal } = options;
    let from = checkOffset(options.from ?? 0n, 'from');
    let place: Place | undefined;
    for (;;) {
      const frame = await this.#page(from, place, signal);
      for (let index = 0; index < frame.itemCount; index++) {
        signal?.throwIfAborted();
        yield itemOf(frame, index);
      }
      if (frame.says[2] === 1n) return;
      place = { position: Number(frame.says[0]), offset: frame.says[1]! };
      from = frame.says[3]!;
    }
  }

  /**
   * The records of the file in order.
   *
   * @param options `onDamage` is told of damage, and of records larger than 64 MiB, and the records behind
   * follow; without it they throw
   * @throws ComlogError DATA_LOSS at damage, with the offset where reading can go on; INVALID_ARGUMENT
   * (BATCH_TOO_LARGE) at a record of more than 64 MiB, with its `offset` and the `nextOffset`
   */
  async *records(
    options: ScanOptions & { onDamage?: ((damage: Damage) => void) | undefined } = {},
  ): AsyncIterableIterator<LogRecord> {
    const { onDamage } = options;
    for await (const item of this.scan(options)) {
      if (item.kind === 'batch' && !item.control) yield* item.records;
      const damage = damageOf(item);
      if (damage && onDamage) onDamage(damage);
      else if (damage) throw (item as SegmentBatch).error ?? dataLoss(damage);
    }
  }

  /** Ends the segment and lets go of its memory. */
  close(): void {
    this.#segment = undefined;
    this.#instance = undefined;
  }

  /** The same as {@link close}. */
  free(): void {
    this.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** The next page of a scan; those of several scans take turns. */
  #page(from: bigint, place: Place | undefined, signal: AbortSignal | undefined): Promise<Frame> {
    const start = (segment: WasmSegment) =>
      place
        ? segment.goOn(place.position, place.offset, from, PAGE_BYTES, true)
        : segment.find(from, this.#base, PAGE_BYTES, true);
    const page = this.#turn.then(() => this.#run(start, signal));
    this.#turn = page.catch(() => undefined);
    return page;
  }

  async #run(start: (segment: WasmSegment) => void, signal: AbortSignal | undefined): Promise<Frame> {
    signal?.throwIfAborted();
    this.#call(start);
    try {
      for (;;) {
        const done = this.#call((segment) => segment.poll());
        if (done) return new Frame(done);
        const [from, to] = this.#call((segment) => segment.wanted());
        const bytes = await this.#read(from!, to!, signal);
        this.#call((segment) => segment.handIn(bytes));
      }
    } catch (error) {
      if (!this.closed) this.#call((segment) => segment.cancel());
      throw error;
    }
  }

  async #read(start: number, end: number, signal: AbortSignal | undefined): Promise<Uint8Array> {
    const bytes = await this.#source.read(start, end, signal);
    signal?.throwIfAborted();
    if (bytes.length === end - start) return bytes;
    const message = `the source gave ${bytes.length} bytes for ${start} to ${end}`;
    throw new ComlogError('UNAVAILABLE', message);
  }

  #call<T>(body: (segment: WasmSegment) => T): T {
    const [instance, segment] = [this.#instance, this.#segment];
    if (!instance || !segment) throw new ComlogError('FAILED_PRECONDITION', 'the segment is closed');
    try {
      return instance.call(() => body(segment));
    } finally {
      if (instance.ended) this.close();
    }
  }
}

function itemOf(frame: Frame, index: number): SegmentItem {
  const numbers = frame.item(index);
  const [kind, start, end] = [0, 1, 2].map((at) => Number(numbers[at]));
  const records = frame.records(Number(numbers[5]));
  const text = frame.text(Number(numbers[15]));
  if (kind === 2) return { kind: 'zeros', start: start!, end: end! };
  if (kind === 1) {
    const nextOffset = numbers[4] === -1n ? undefined : numbers[4];
    return { kind: 'damage', start: start!, end: end!, firstOffset: numbers[3]!, nextOffset, reason: text };
  }
  const info = batchInfo(numbers);
  const [attributes, firstOffset, nextOffset] = [Number(numbers[7]), numbers[16]!, numbers[17]!];
  const more = (attributes & 64) !== 0;
  let error: ComlogError | undefined;
  if (attributes & 128) {
    const about = { reason: 'BATCH_TOO_LARGE', offset: firstOffset, nextOffset };
    error = new ComlogError('INVALID_ARGUMENT', text, about);
  } else if (text !== '') {
    error = dataLoss({ firstOffset, nextOffset, reason: text });
  }
  return { kind: 'batch', position: start!, ...info, records, more, error, errorOffset: error && firstOffset };
}

function damageOf(item: SegmentItem): Damage | undefined {
  if (item.kind === 'damage') return item;
  if (item.kind !== 'batch' || !item.error) return undefined;
  const { position, bytes, baseOffset, errorOffset = baseOffset, error } = item;
  return {
    kind: 'damage',
    start: position,
    end: position + bytes,
    firstOffset: errorOffset,
    nextOffset: error.nextOffset,
    reason: error.message,
  };
}

function dataLoss({ firstOffset, nextOffset, reason }: Pick<Damage, 'firstOffset' | 'nextOffset' | 'reason'>): ComlogError {
  const until = nextOffset === undefined ? 'the end' : `offset ${nextOffset}`;
  return new ComlogError('DATA_LOSS', `damaged from offset ${firstOffset} to ${until}: ${reason}`, {
    reason: 'CORRUPT',
    offset: nextOffset,
    nextOffset,
  });
}
