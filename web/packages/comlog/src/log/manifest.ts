/** The manifest of an archived partition; `crates/archive/format.md` describes it. */

import { ComlogError } from '../error.js';

/** What is used of a manifest. */
export interface Manifest {
  topic: string;
  partition: number;
  logStartOffset: number;
  /** Ascending, not overlapping. */
  segments: SegmentEntry[];
}

export interface SegmentEntry {
  base: number;
  /** Exclusive. */
  end: number;
  /** Bytes of the object. */
  len: number;
  /** CRC-32C of the object. */
  crc: number;
  /** The writer epoch in its key. */
  epoch: number;
  maxTimestamp: number | null;
}

const FORMAT = '1';
/** The polynomial of CRC-32C, its bits reversed. */
const CASTAGNOLI = 0x82f63b78;

/**
 * @throws ComlogError DATA_LOSS when it is damaged, UNIMPLEMENTED when its format is newer
 */
export function decodeManifest(content: Uint8Array): Manifest {
  const lineEnd = content.indexOf(10);
  const [, format, sum] = /^comlog manifest (\d+) ([0-9a-f]{8})$/.exec(text(content.subarray(0, lineEnd))) ?? [];
  if (lineEnd < 0 || sum === undefined) throw damaged('it is no manifest');
  if (format !== FORMAT) throw new ComlogError('UNIMPLEMENTED', `the manifest has format ${format}, not ${FORMAT}`);
  const json = content.subarray(lineEnd + 1);
  if (crc32c(json) !== parseInt(sum, 16)) throw damaged('its checksum is wrong');
  const manifest = membersOf(parsed(text(json)));
  if (!manifest) throw damaged('a member is missing, or no number of 53 bits');
  let end = 0;
  for (const segment of manifest.segments) {
    if (segment.base < end || segment.end < segment.base) throw damaged('segments overlap or are out of order');
    end = segment.end;
  }
  return manifest;
}

type Members = Record<string, unknown>;

/** Without members when it is no object, or no JSON. */
function parsed(json: string): Members {
  try {
    return Object(JSON.parse(json)) as Members;
  } catch {
    return {};
  }
}

/** `undefined` unless all members are what they should be. */
function membersOf(json: Members): Manifest | undefined {
  const { topic, partition, log_start_offset: logStartOffset, segments } = json;
  if (typeof topic !== 'string' || !isCount(partition) || !isCount(logStartOffset) || !Array.isArray(segments)) {
    return undefined;
  }
  const entries = segments.map((entry) => {
    const { base_offset: base, end_offset: end, len, crc, epoch, max_timestamp: newest } = Object(entry) as Members;
    const maxTimestamp = Number.isSafeInteger(newest) ? (newest as number) : null;
    const all = isCount(base) && isCount(end) && isCount(len) && isCount(crc) && isCount(epoch);
    return all ? { base, end, len, crc, epoch, maxTimestamp } : undefined;
  });
  if (entries.includes(undefined)) return undefined;
  return { topic, partition, logStartOffset, segments: entries as SegmentEntry[] };
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function crc32c(bytes: Uint8Array): number {
  let crc = -1;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? CASTAGNOLI : 0);
  }
  return ~crc >>> 0;
}

function text(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}

function damaged(why: string): ComlogError {
  return new ComlogError('DATA_LOSS', `the manifest is damaged: ${why}`, { reason: 'CORRUPT' });
}
