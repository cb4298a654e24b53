// Makes records at a steady rate and measures how they are acknowledged.

import type { Delivered, RecordInput } from "comlog";

import { wait } from "./api";

export interface Sink {
  /** Undefined when there is no room now. */
  trySend(record: RecordInput): Promise<Delivered | void> | undefined;
  /** Resolves when there is room again. */
  ready(signal: AbortSignal): Promise<void>;
}

export interface GeneratorOptions {
  perSecond: number;
  valueBytes: number;
  /** Different keys; 0 for records without a key. */
  keys: number;
}

/** What the generator has done so far. */
export interface Produced {
  sent: number;
  acknowledged: number;
  failed: number;
  lastError: unknown;
}

/** Between two handfuls of records. */
const TICK_MS = 20;
/** A handful that is late is caught up with at most this much, in seconds of the rate. */
const BEHIND_MAX = 0.25;

export class Generator {
  readonly produced: Produced = { sent: 0, acknowledged: 0, failed: 0, lastError: undefined };
  #latencies: number[] = [];

  constructor(
    readonly sink: Sink,
    readonly options: GeneratorOptions,
  ) {}

  /** Produces until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { perSecond } = this.options;
    let due = 0;
    let last = performance.now();
    while (!signal.aborted) {
      const now = performance.now();
      due = Math.min(due + ((now - last) / 1000) * perSecond, Math.max(1, perSecond * BEHIND_MAX));
      last = now;
      while (due >= 1 && !signal.aborted) {
        if (!this.#send()) {
          await this.sink.ready(signal);
          break;
        }
        due -= 1;
      }
      await wait(TICK_MS, signal);
    }
  }

  /** The latencies of what was acknowledged since the last call, in milliseconds. */
  takeLatencies(): number[] {
    const latencies = this.#latencies;
    this.#latencies = [];
    return latencies;
  }

  #send(): boolean {
    const started = performance.now();
    const sending = this.sink.trySend(this.#record());
    if (!sending) return false;
    this.produced.sent += 1;
    sending.then(
      () => {
        this.produced.acknowledged += 1;
        this.#latencies.push(performance.now() - started);
      },
      (error: unknown) => {
        this.produced.failed += 1;
        this.produced.lastError = error;
      },
    );
    return true;
  }

  #record(): RecordInput {
    const number = this.produced.sent;
    const { keys, valueBytes } = this.options;
    const head = `{"n":${number},"at":${Date.now()},"pad":"`;
    const pad = Math.max(0, valueBytes - head.length - 2);
    return { key: keys > 0 ? `key-${number % keys}` : null, value: `${head}${"x".repeat(pad)}"}` };
  }
}
