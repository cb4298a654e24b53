// The records a view holds: bounded, the oldest dropped first.

export interface Header {
  name: string;
  value: Uint8Array | null;
}

/** One line of a list of records. */
export interface Row {
  partition: number;
  offset: bigint;
  /** Unix milliseconds. */
  timestamp: number;
  key: Uint8Array | null;
  value: Uint8Array | null;
  headers: readonly Header[];
}

/** Records that a view holds at most. */
export const ROWS_MAX = 100_000;
/** Bytes of their keys, values and headers that a view holds at most. */
export const ROW_BYTES_MAX = 64 * 1024 * 1024;

/**
 * A ring of rows. Each row has a number that never changes, counted from 0; the rows held are
 * those from `first` (inclusive) to `end` (exclusive).
 */
export class Rows {
  #ring: (Row | undefined)[] = [];
  #first = 0;
  #end = 0;
  #bytes = 0;

  constructor(
    readonly rowsMax = ROWS_MAX,
    readonly bytesMax = ROW_BYTES_MAX,
  ) {}

  get first(): number {
    return this.#first;
  }

  get end(): number {
    return this.#end;
  }

  get bytes(): number {
    return this.#bytes;
  }

  push(row: Row): void {
    if (this.#end - this.#first >= this.rowsMax) this.#drop();
    this.#ring[this.#end % this.rowsMax] = row;
    this.#end += 1;
    this.#bytes += rowBytes(row);
    while (this.#bytes > this.bytesMax && this.#end - this.#first > 1) this.#drop();
  }

  /** The row of this number, undefined when it is not held (any more). */
  get(number: number): Row | undefined {
    if (number < this.#first || number >= this.#end) return undefined;
    return this.#ring[number % this.rowsMax];
  }

  /** Holds nothing; the numbers go on. */
  clear(): void {
    this.#ring = [];
    this.#first = this.#end;
    this.#bytes = 0;
  }

  #drop(): void {
    const slot = this.#first % this.rowsMax;
    const row = this.#ring[slot];
    if (row) this.#bytes -= rowBytes(row);
    this.#ring[slot] = undefined;
    this.#first += 1;
  }
}

/** The bytes of a record that are its own: key, value, headers. */
export function rowBytes(row: Row): number {
  let bytes = (row.key?.length ?? 0) + (row.value?.length ?? 0);
  for (const header of row.headers) bytes += header.name.length + (header.value?.length ?? 0);
  return bytes;
}
