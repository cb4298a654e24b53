/** A partition in an archive, read over HTTP: no server of comlog is asked. */

import { ComlogError } from '../error.js';
import type { LogRecord } from '../record.js';
import { checkOffset } from './frame.js';
import { decodeManifest, type SegmentEntry } from './manifest.js';
import { Segment, type Damage } from './segment.js';
import { getWhole, httpSource, type HttpOptions } from './source.js';

/** A sealed segment in the archive. */
export interface ArchivedSegment {
  /** Its first offset. */
  readonly baseOffset: bigint;
  /** Behind its last offset (exclusive). */
  readonly endOffset: bigint;
  /** Bytes of the `.log` object. */
  readonly size: number;
  /** The newest timestamp in it, in Unix milliseconds; `undefined` without records. */
  readonly maxTimestamp: bigint | undefined;
  /** Where the `.log` object is. */
  readonly url: string;
}

export interface ArchivedReadOptions {
  /** Default: where the log starts. */
  from?: bigint | undefined;
  /** Is told of damage, and the records behind it follow; without it damage throws. */
  onDamage?: ((damage: Damage, segment: ArchivedSegment) => void) | undefined;
  signal?: AbortSignal | undefined;
}

/**
 * The archived part of one partition, as its manifest had it when it was opened. Segments that are
 * archived later are not in it, and those that retention removes can no longer be read: open it anew.
 */
export class ArchivedPartition {
  readonly topic: string;
  /** Counted from 0. */
  readonly partition: number;
  /** The first offset that is part of the log. */
  readonly startOffset: bigint;
  /** Behind the last archived offset (exclusive). */
  readonly endOffset: bigint;
  /** Ascending. */
  readonly segments: readonly ArchivedSegment[];
  readonly #options: HttpOptions;

  private constructor(folder: URL, manifest: ReturnType<typeof decodeManifest>, options: HttpOptions) {
    this.topic = manifest.topic;
    this.partition = manifest.partition;
    this.startOffset = BigInt(manifest.logStartOffset);
    this.segments = manifest.segments.map((entry) => segmentOf(folder, entry));
    this.endOffset = this.segments.at(-1)?.endOffset ?? this.startOffset;
    this.#options = options;
  }

  /**
   * Reads a partition's manifest.
   *
   * @param url of the partition's folder, `.../topics/TOPIC-ID/PARTITION`; a query goes with every request
   * @throws ComlogError as `httpSource`; DATA_LOSS for a damaged manifest, UNIMPLEMENTED for an unknown format
   */
  static async open(url: string | URL, options: HttpOptions = {}): Promise<ArchivedPartition> {
    const folder = new URL(url, globalThis.location?.href);
    const manifest = await getWhole(objectIn(folder, 'manifest'), options, options.signal);
    const { signal: _, ...kept } = options;
    return new ArchivedPartition(folder, decodeManifest(manifest), kept);
  }

  /**
   * Opens one segment; its bytes are fetched in ranges, when they are needed. Needs `init()` before.
   *
   * @param from an offset that reading will start at: then the segment's index is fetched too, if it is there
   * @throws ComlogError as `httpSource`; DATA_LOSS when the object is not of the size that it was archived with
   */
  async openSegment(
    segment: ArchivedSegment,
    { from, signal }: { from?: bigint | undefined; signal?: AbortSignal | undefined } = {},
  ): Promise<Segment> {
    const source = await httpSource(segment.url, { ...this.#options, signal });
    if (source.size !== segment.size) {
      throw new ComlogError('DATA_LOSS', `${segment.url} has ${source.size} bytes, ${segment.size} were archived`, {
        reason: 'CORRUPT',
      });
    }
    const { baseOffset } = segment;
    const index = from !== undefined && from > baseOffset ? await this.#index(segment, signal) : undefined;
    try {
      return await Segment.open(source, { baseOffset, index });
    } catch (error) {
      // An index is a hint.
      if (!index) throw error;
      return Segment.open(source, { baseOffset });
    }
  }

  /**
   * The archived records in order.
   *
   * @throws ComlogError OUT_OF_RANGE when `from` is before the log's start or behind what is archived,
   * DATA_LOSS at damage, with the offset where reading can go on
   */
  async *records(options: ArchivedReadOptions = {}): AsyncIterableIterator<LogRecord> {
    const { onDamage, signal } = options;
    const from = checkOffset(options.from ?? this.startOffset, 'from');
    if (from < this.startOffset || from > this.endOffset) throw this.#outOfRange(from);
    for (const segment of this.segments) {
      if (segment.endOffset <= from) continue;
      const opened = await this.openSegment(segment, { from, signal });
      const told = onDamage && ((damage: Damage) => onDamage(damage, segment));
      try {
        yield* opened.records({ from, onDamage: told, signal });
      } finally {
        opened.close();
      }
    }
  }

  async #index({ url }: ArchivedSegment, signal: AbortSignal | undefined): Promise<Uint8Array | undefined> {
    const at = new URL(url);
    at.pathname = at.pathname.replace(/\.log$/, '.index');
    try {
      return await getWhole(at, this.#options, signal);
    } catch {
      signal?.throwIfAborted();
      return undefined;
    }
  }

  #outOfRange(from: bigint): ComlogError {
    const { topic, partition, startOffset, endOffset } = this;
    const offset = from < startOffset ? startOffset : endOffset;
    const message = `offset ${from} is not in the archive, which has ${startOffset} to ${endOffset} (exclusive)`;
    return new ComlogError('OUT_OF_RANGE', message, { reason: 'OFFSET_OUT_OF_RANGE', topic, partition, offset });
  }
}

function segmentOf(folder: URL, { base, end, epoch, crc, len, maxTimestamp }: SegmentEntry): ArchivedSegment {
  const [first, behind] = [base, end].map((offset) => String(offset).padStart(20, '0'));
  const sum = crc.toString(16).padStart(8, '0');
  return {
    baseOffset: BigInt(base),
    endOffset: BigInt(end),
    size: len,
    maxTimestamp: maxTimestamp === null ? undefined : BigInt(maxTimestamp),
    url: objectIn(folder, `${first}-${behind}-${epoch}-${sum}.log`).href,
  };
}

function objectIn(folder: URL, name: string): URL {
  const url = new URL(folder);
  url.pathname = `${url.pathname.replace(/\/$/, '')}/${name}`;
  return url;
}
