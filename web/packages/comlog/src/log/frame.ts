/** Records on their way into and out of WebAssembly; `crates/wasm/src/frame.rs` has the layout. */

import { ComlogError } from '../error.js';
import { check, checkBytes as checkUint8Array, checkList, checkObject } from '../check.js';
import { toTimestamp, type BytesLike, type Header, type LogRecord, type RecordInput } from '../record.js';

const HEAD_BYTES = 64;
const ITEM_NUMBERS = 18;
/** A buffer larger than this is not kept for the next call. */
const KEPT_BYTES_MAX = 1 << 20;
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Where records are laid out, one call after the other. */
let scratch = new DataView(new ArrayBuffer(64 << 10));
/** The same bytes. */
let scratchBytes = new Uint8Array(scratch.buffer);

function useScratch(buffer: ArrayBuffer): void {
  scratch = new DataView(buffer);
  scratchBytes = new Uint8Array(buffer);
}

/** Lays records out for WebAssembly. What it returns holds until the next call. */
export function pack(records: Iterable<RecordInput>): Uint8Array {
  if (scratch.byteLength > KEPT_BYTES_MAX) useScratch(new ArrayBuffer(64 << 10));
  let at = 0;
  for (const record of checkIterable('records', records)) {
    const { key, value, headers, timestamp } = checkObject('record', record);
    if (headers !== undefined) checkList('headers', headers);
    room(at, 8);
    at = putTimestamp(at, timestamp);
    at = putBytes(at, 'key', key);
    at = putBytes(at, 'value', value);
    const count = headers?.length ?? 0;
    room(at, 4);
    scratch.setInt32(at, count, true);
    at += 4;
    for (let index = 0; index < count; index++) {
      const { name, value } = checkObject('a header', headers![index]!);
      at = putBytes(at, 'header.name', check(name != null, 'header.name', 'a string or bytes', name));
      at = putBytes(at, 'header.value', value);
    }
  }
  return scratchBytes.subarray(0, at);
}

/** Makes room for so many bytes. */
function room(at: number, bytes: number): void {
  if (at + bytes <= scratch.byteLength) return;
  const larger = new Uint8Array(Math.max(2 * scratch.byteLength, at + bytes));
  larger.set(scratchBytes.subarray(0, at));
  useScratch(larger.buffer);
}

/** The least number of 64 bits stands for the time of the append. */
function putTimestamp(at: number, timestamp: RecordInput['timestamp']): number {
  if (timestamp === undefined) {
    scratch.setUint32(at, 0, true);
    scratch.setUint32(at + 4, 0x8000_0000, true);
  } else {
    scratch.setBigInt64(at, toTimestamp(timestamp), true);
  }
  return at + 8;
}

function putBytes(at: number, name: string, value: BytesLike | null | undefined): number {
  if (value === null || value === undefined) {
    room(at, 4);
    scratch.setInt32(at, -1, true);
    return at + 4;
  }
  const start = at + 4;
  let length;
  if (typeof value === 'string') {
    // A unit of UTF-16 takes three bytes of UTF-8 at most.
    room(at, 4 + 3 * value.length);
    length = encoder.encodeInto(value, scratchBytes.subarray(start)).written;
  } else {
    length = checkUint8Array(name, value).length;
    room(at, 4 + length);
    scratchBytes.set(value, start);
  }
  scratch.setInt32(at, length, true);
  return start + length;
}

/** Reads what WebAssembly laid out, from front to back. */
export class Frame {
  readonly recordCount: number;
  readonly itemCount: number;
  /** The last four numbers of the head: what the call says. */
  readonly says: BigInt64Array;
  readonly #items: BigInt64Array;
  readonly #times: BigInt64Array;
  readonly #offsets: BigInt64Array;
  readonly #lengths: Int32Array;
  readonly #bytes: Uint8Array;
  #record = 0;
  #length = 0;
  #at: number;

  constructor(bytes: Uint8Array) {
    const { buffer, byteOffset } = bytes;
    const head = new BigInt64Array(buffer, byteOffset, 8);
    const [records, items, lengths] = [0, 1, 2].map((at) => Number(head[at]));
    this.recordCount = records!;
    this.itemCount = items!;
    this.says = head.subarray(4);
    let at = byteOffset + HEAD_BYTES;
    const numbers = (count: number) => {
      const part = new BigInt64Array(buffer, at, count);
      at += 8 * count;
      return part;
    };
    this.#items = numbers(ITEM_NUMBERS * items!);
    this.#times = numbers(records!);
    this.#offsets = numbers(records!);
    this.#lengths = new Int32Array(buffer, at, lengths);
    this.#bytes = bytes;
    this.#at = at - byteOffset + 4 * lengths!;
  }

  /** The numbers of an item. */
  item(index: number): BigInt64Array {
    return this.#items.subarray(ITEM_NUMBERS * index, ITEM_NUMBERS * (index + 1));
  }

  /** The next records. Keys and values are views of the frame. */
  records(count: number): LogRecord[] {
    const records: LogRecord[] = new Array(count);
    for (let at = 0; at < count; at++) {
      const index = this.#record++;
      const offset = this.#offsets[index]!;
      const timestamp = this.#times[index]!;
      const key = this.#take();
      const value = this.#take();
      const headers: Header[] = [];
      for (let left = this.#lengths[this.#length++]!; left > 0; left--) {
        const name = decoder.decode(this.#take() ?? undefined);
        headers.push({ name, value: this.#take() });
      }
      records[at] = { offset, timestamp, key, value, headers };
    }
    return records;
  }

  /** The text of so many bytes that stands next. */
  text(length: number): string {
    return decoder.decode(this.#bytes.subarray(this.#at, (this.#at += length)));
  }

  #take(): Uint8Array | null {
    const length = this.#lengths[this.#length++]!;
    return length < 0 ? null : this.#bytes.subarray(this.#at, (this.#at += length));
  }
}

const OFFSET_MAX = 2n ** 63n - 1n;

/** An offset from a caller. */
export function checkOffset(value: bigint, what: string): bigint {
  return check(typeof value === 'bigint' && value >= 0n && value <= OFFSET_MAX, what, 'a bigint from 0 to 2^63 - 1', value);
}

/** A number of bytes from a caller. */
export function checkBytes(value: number, what: string, max: number): number {
  return check(Number.isSafeInteger(value) && value > 0 && value <= max, what, `an integer from 1 to ${max}`, value);
}

function checkIterable<T>(name: string, value: Iterable<T>): Iterable<T> {
  const is = typeof value === 'object' && value !== null && Symbol.iterator in value;
  return check(is, name, 'an iterable', value);
}

export function invalid(message: string): ComlogError {
  return new ComlogError('INVALID_ARGUMENT', message, { reason: 'INVALID_REQUEST' });
}
