/** A batch that decompresses to far more than it has. */
import { gzipSync } from 'node:zlib';

/** One batch of records without keys whose values are as many zeros, compressed by gzip. */
export function bomb(lengths: readonly number[]): Uint8Array {
  const body = gzipSync(Buffer.concat(lengths.map(record)), { level: 1 });
  const batch = Buffer.alloc(61 + body.length);
  batch.writeInt32BE(batch.length - 12, 8);
  batch.writeInt8(2, 16);
  batch.writeInt16BE(1, 21);
  batch.writeInt32BE(lengths.length - 1, 23);
  batch.writeBigInt64BE(7n, 27);
  batch.writeBigInt64BE(7n, 35);
  batch.fill(0xff, 43, 57);
  batch.writeInt32BE(lengths.length, 57);
  batch.set(body, 61);
  batch.writeUInt32BE(crc32c(batch.subarray(21)), 17);
  return batch;
}

function record(length: number, delta: number): Uint8Array {
  const head = [0, ...varint(0), ...varint(delta), ...varint(-1), ...varint(length)];
  const rest = Buffer.concat([Buffer.from(head), Buffer.alloc(length), Buffer.from(varint(0))]);
  return Buffer.concat([Buffer.from(varint(rest.length)), rest]);
}

/** Zigzag, as Kafka writes integers. */
function varint(value: number): number[] {
  let left = value < 0 ? -2 * value - 1 : 2 * value;
  const bytes: number[] = [];
  for (; left > 127; left = Math.floor(left / 128)) bytes.push((left % 128) | 128);
  return [...bytes, left];
}

function crc32c(bytes: Uint8Array): number {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f6_3b78 : 0);
  }
  return ~crc >>> 0;
}
