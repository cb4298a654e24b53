import { decode } from "../bytes";
import type { Row, Rows } from "./rows";

export type Match = (row: Row) => boolean;

/** A filter as it was typed: a text to find, or `/a pattern/`; undefined for an empty one. */
export function parseFilter(text: string): Match | undefined | Error {
  const pattern = /^\/(.+)\/(i?)$/.exec(text);
  if (pattern) {
    try {
      const regex = new RegExp(pattern[1] as string, pattern[2]);
      return (row) => texts(row).some((part) => regex.test(part));
    } catch (error) {
      return error instanceof Error ? error : new Error(String(error));
    }
  }
  if (text === "") return undefined;
  const wanted = text.toLowerCase();
  return (row) => texts(row).some((part) => part.toLowerCase().includes(wanted));
}

function texts(row: Row): string[] {
  const parts = row.headers.flatMap((header) => [header.name, header.value ? decode(header.value) : ""]);
  if (row.key) parts.push(decode(row.key));
  if (row.value) parts.push(decode(row.value));
  return parts;
}

/** The numbers of the rows that a filter lets through, kept up to date as rows come and go. */
export class Filtered {
  #match: Match | undefined;
  #numbers: number[] = [];
  /** How many of the front of `#numbers` are dropped already. */
  #head = 0;
  #seen = 0;

  constructor(readonly rows: Rows) {}

  get length(): number {
    return this.#match ? this.#numbers.length - this.#head : this.rows.end - this.rows.first;
  }

  /** The number of the row at a place in the list. */
  at(index: number): number | undefined {
    if (index < 0 || index >= this.length) return undefined;
    return this.#match ? this.#numbers[this.#head + index] : this.rows.first + index;
  }

  /** The place of a row in the list, or of the next behind it. */
  indexOf(number: number): number {
    if (!this.#match) return Math.max(0, number - this.rows.first);
    let low = this.#head;
    let high = this.#numbers.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#numbers[middle] as number) < number) low = middle + 1;
      else high = middle;
    }
    return low - this.#head;
  }

  set(match: Match | undefined): void {
    this.#match = match;
    this.#numbers = [];
    this.#head = 0;
    this.#seen = this.rows.first;
    this.update();
  }

  /** Takes up what came and lets go of what was dropped; says how many places were dropped. */
  update(): number {
    const first = this.rows.first;
    if (!this.#match) {
      const dropped = Math.max(0, first - this.#seen);
      this.#seen = first;
      return dropped;
    }
    const before = this.#head;
    while (this.#head < this.#numbers.length && (this.#numbers[this.#head] as number) < first) this.#head += 1;
    const dropped = this.#head - before;
    if (this.#head > COMPACT_FROM) {
      this.#numbers = this.#numbers.slice(this.#head);
      this.#head = 0;
    }
    for (let number = Math.max(this.#seen, first); number < this.rows.end; number += 1) {
      const row = this.rows.get(number);
      if (row && this.#match(row)) this.#numbers.push(number);
    }
    this.#seen = this.rows.end;
    return dropped;
  }
}

/** Dropped places that are kept before the list of numbers is cut. */
const COMPACT_FROM = 4096;
