/** What the generated half of this entry offers: one WebAssembly instance and the classes in it. */

export interface WasmMemoryLog {
  append(
    frame: Uint8Array,
    compression: string,
    expectedOffset: bigint | undefined,
    producerId: bigint,
    producerEpoch: number,
    baseSequence: number,
  ): BigInt64Array;
  appendBatches(bytes: Uint8Array, expectedOffset: bigint | undefined): BigInt64Array;
  read(from: bigint, maxBytes: number): Uint8Array;
  readBatches(from: bigint, maxBytes: number): Uint8Array;
  offsetForTimestamp(timestamp: bigint): BigInt64Array;
  trim(start: bigint): bigint;
  stats(): BigInt64Array;
  positions(): BigInt64Array;
  exportSegment(baseOffset: bigint): Uint8Array;
}

export interface WasmSegment {
  useIndex(index: Uint8Array): void;
  find(from: bigint, base: bigint | undefined, maxBytes: number, withRecords: boolean): void;
  goOn(
    position: number,
    offset: bigint,
    from: bigint,
    maxBytes: number,
    withRecords: boolean,
  ): void;
  poll(): Uint8Array | undefined;
  wanted(): Float64Array;
  handIn(bytes: Uint8Array): void;
  cancel(): void;
}

export interface Wasm {
  readonly memory: WebAssembly.Memory;
}

/** Not instantiated until it is called, or `initSync` is. */
export interface Glue {
  (options: { module_or_path: WebAssembly.Module }): Promise<Wasm>;
  initSync(options: { module: WebAssembly.Module }): Wasm;
  readonly MemoryLog: new (
    bytesMax: number,
    segmentBytesMax: number,
    batchBytesMax: number,
    stampAppendTime: boolean,
  ) => WasmMemoryLog;
  readonly Segment: new (size: number) => WasmSegment;
  encodeBatch(
    frame: Uint8Array,
    compression: string,
    baseOffset: bigint,
    producerId: bigint,
    producerEpoch: number,
    baseSequence: number,
  ): Uint8Array;
  decodeBatches(bytes: Uint8Array): Uint8Array;
  decodeRecords(bytes: Uint8Array, from: bigint, maxBytes: number): Uint8Array;
  lastPanic(): string;
}
