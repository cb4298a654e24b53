import { checkInteger } from './check.js';
import { toBytes, type BytesLike } from './record.js';

/**
 * The partition of a record with this key: `(murmur2(key) & 0x7fffffff) % partitions`, so a key
 * lands where a Kafka client would put it, and this project's Rust client.
 */
export function partitionForKey(key: BytesLike, partitions: number): number {
  return (murmur2(toBytes(key)) & 0x7fff_ffff) % checkInteger('partitions', partitions, 1);
}

/** MurmurHash2, 32 bits, with the seed that Kafka uses. From 0 to 2^32 - 1. */
export function murmur2(data: Uint8Array): number {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const whole = data.length & ~3;
  let hash = SEED ^ data.length;
  for (let at = 0; at < whole; at += 4) {
    let word = Math.imul(view.getInt32(at, true), M);
    word ^= word >>> 24;
    hash = Math.imul(hash, M) ^ Math.imul(word, M);
  }
  if (whole < data.length) {
    for (let at = whole; at < data.length; at += 1) hash ^= view.getUint8(at) << (8 * (at - whole));
    hash = Math.imul(hash, M);
  }
  hash ^= hash >>> 13;
  hash = Math.imul(hash, M);
  return (hash ^ (hash >>> 15)) >>> 0;
}

const SEED = 0x9747_b28c;
const M = 0x5bd1_e995;
