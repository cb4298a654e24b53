/** What callers hand in is checked before it is used: not everybody has the types. */
import { ComlogError } from './error.js';

/** `value`, if it `is` what the field called `name` takes. */
export function check<T>(is: boolean, name: string, what: string, value: T): T {
  if (is) return value;
  throw invalid(name, what, value);
}

export function invalid(name: string, what: string, value: unknown): ComlogError {
  const shown = typeof value === 'object' && value !== null ? 'an object' : String(value).slice(0, 80);
  return new ComlogError('INVALID_ARGUMENT', `${name} must be ${what}, not ${shown}`, { reason: 'INVALID_REQUEST' });
}

export function checkText(name: string, value: string): string {
  return check(typeof value === 'string', name, 'a string', value);
}

export function checkObject<T>(name: string, value: T): T {
  return check(typeof value === 'object' && value !== null, name, 'an object', value);
}

export function checkList<T>(name: string, value: readonly T[]): readonly T[] {
  return check(Array.isArray(value), name, 'an array', value);
}

/** An integer from `min` (default 0) to 2^31 - 1. */
export function checkInteger(name: string, value: number, min = 0): number {
  return check(Number.isInteger(value) && value >= min && value < 2 ** 31, name, `an integer from ${min}`, value);
}

/** A `bigint` from 0 to 2^63 - 1. */
export function checkOffset(name: string, value: bigint): bigint {
  return check(typeof value === 'bigint' && value >= 0n && isInt64(value), name, 'a bigint from 0 to 2^63 - 1', value);
}

export function checkBytes<T>(name: string, value: T): T {
  // By its tag, since it may come from another frame.
  const is = Object.prototype.toString.call(value) === '[object Uint8Array]';
  return check(is, name, 'a Uint8Array', value);
}

/** A topic and the number of one of its partitions, which may be left out. */
export function checkPlace({ topic, partition = 0 }: { topic: string; partition?: number | undefined }): void {
  checkText('topic', topic);
  checkInteger('partition', partition);
}

export function isInt64(value: bigint): boolean {
  return BigInt.asIntN(64, value) === value;
}
