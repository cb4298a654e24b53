// Follows partitions of a topic into rows, as long as a view is open.

import { ComlogError, type Consumer, type ConsumerRecord, type StartAt } from "comlog";

import { client, isAbort } from "../api";
import { Cell } from "../cell";
import type { Start } from "../route";
import { Rows, type Row } from "./rows";

/** Records of the past that `recent` shows before it follows, over all partitions. */
const RECENT_MAX = 500n;
/** Records taken in one turn, so that the page stays responsive. */
const TURN_MAX = 2_000;
/**
 * Bytes that are fetched ahead of what the list has taken, and how often new partitions are looked for: as
 * soon as the head of the view counts them, about.
 */
const LIMITS = { prefetchBytes: 4 * 1024 * 1024, metadataAgeMs: 5_000 };
/** Delays kept between two looks at them. */
const DELAYS_MAX = 1_000;
/** Between two attempts to find out where to start. */
const AGAIN_MS = 1_000;

/** What keeps one partition from being followed further, until it is sought or left. */
export interface Rest {
  partition: number;
  error: ComlogError;
}

export type FollowState =
  | { kind: "loading" }
  | { kind: "live" }
  | { kind: "paused" }
  /** Nothing more will come: there is no such topic, or no such partition. */
  | { kind: "refused"; error: unknown };

export class Follower {
  readonly rows = new Rows();
  readonly state = new Cell<FollowState>({ kind: "loading" });
  /** Partitions that rest because of an error. */
  readonly rests = new Cell<readonly Rest[]>([]);
  #consumer: Consumer | undefined;
  #delays: number[] = [];
  #past: Past | undefined;
  /** Records stamped before are not live: how long ago they were written says nothing. */
  #liveSince = Infinity;

  /** `partitions` empty means all there are, and those added later. */
  constructor(
    readonly topic: string,
    readonly partitions: number[],
    readonly start: Start,
    readonly onRows: () => void,
  ) {}

  /** Follows until the signal aborts, through every loss of the connection. */
  async run(signal: AbortSignal): Promise<void> {
    signal.addEventListener("abort", () => void this.#consumer?.close(), { once: true });
    try {
      await this.#open(signal);
      while (!signal.aborted) await this.#turn(signal);
    } catch (error) {
      if (!signal.aborted && !isAbort(error)) this.state.value = { kind: "refused", error };
    }
  }

  pause(): void {
    this.#consumer?.pause();
    this.state.value = { kind: "paused" };
  }

  resume(): void {
    this.#consumer?.resume();
    this.state.value = { kind: "live" };
  }

  /** Lets a partition that rests go on from here. */
  goOn(partition: number, at: StartAt): void {
    this.#consumer?.seek(this.topic, partition, at);
    this.rests.value = this.rests.value.filter((rest) => rest.partition !== partition);
  }

  /** The delays between append and arrival since the last call, in milliseconds. */
  takeDelays(): number[] {
    const delays = this.#delays;
    this.#delays = [];
    return delays;
  }

  async #open(signal: AbortSignal): Promise<void> {
    const starts = await this.#starts(signal);
    if (signal.aborted) return;
    if (this.start.kind === "recent") this.#past = new Past(starts);
    this.#consumer = client.consumer({ start: "earliest", outOfRange: "error", ...LIMITS });
    this.#consumer.assign(starts);
    // Those that are there already go on; partitions added later, also meanwhile, are read from their beginning.
    if (this.partitions.length === 0) this.#consumer.assign([{ topic: this.topic }]);
    this.#liveSince = Date.now();
    // The past is shown once all of it is there: until then it is loading.
    if (!this.#past || this.#past.until.size === 0) this.state.value = { kind: "live" };
  }

  async #turn(signal: AbortSignal): Promise<void> {
    const consumer = this.#consumer as Consumer;
    try {
      const records = await consumer.poll({ maxRecords: TURN_MAX, signal });
      for (const record of records) this.#take(record);
      this.#mergePast(consumer);
      this.onRows();
      await breathe();
    } catch (error) {
      if (!(error instanceof ComlogError) || error.partition === undefined) throw error;
      if (error.reason === "TOPIC_NOT_FOUND") throw error;
      const { partition } = error;
      this.#past?.until.delete(partition);
      this.#mergePast(consumer);
      const others = this.rests.value.filter((rest) => rest.partition !== partition);
      this.rests.value = [...others, { partition, error }];
    }
  }

  #take(record: ConsumerRecord): void {
    const row = toRow(record);
    if (this.#past) this.#past.rows.push(row);
    else this.rows.push(row);
    if (row.timestamp >= this.#liveSince && this.#delays.length < DELAYS_MAX) {
      this.#delays.push(Math.max(0, Date.now() - row.timestamp));
    }
  }

  /** Once the past of every partition is there, shows all of it by time. */
  #mergePast(consumer: Consumer): void {
    const past = this.#past;
    if (!past) return;
    for (const [partition, end] of past.until) {
      if ((consumer.position(this.topic, partition) ?? -1n) >= end) past.until.delete(partition);
    }
    if (past.until.size > 0) return;
    this.#past = undefined;
    for (const row of past.byTime()) this.rows.push(row);
    if (this.state.value.kind === "loading") this.state.value = { kind: "live" };
  }

  /** Where each partition starts; asks again while the server does not answer. */
  async #starts(signal: AbortSignal): Promise<Starting[]> {
    const { topic } = this;
    for (;;) {
      try {
        const there = await client.describeTopic(topic, { signal });
        const all = there.partitions.map(({ partition }) => partition);
        const wanted = this.partitions.length > 0 ? this.partitions : all;
        const share = RECENT_MAX / BigInt(Math.max(1, wanted.length)) || 1n;
        return wanted.map((partition) => {
          const info = there.partitions.find((one) => one.partition === partition);
          const recent = info ? max(info.logStartOffset, info.highWatermark - share) : 0n;
          return { topic, partition, at: startAt(this.start, recent), end: info?.highWatermark ?? 0n };
        });
      } catch (error) {
        const passing = error instanceof ComlogError && error.retryable;
        if (!passing || signal.aborted) throw error;
        await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
      }
    }
  }
}

/** Where a partition starts, and where it ended when that was decided. */
interface Starting {
  topic: string;
  partition: number;
  at: StartAt;
  end: bigint;
}

/** The newest records that were there already, gathered from all partitions before they are shown. */
class Past {
  readonly rows: Row[] = [];
  /** Up to where partitions are still to be read. */
  readonly until: Map<number, bigint>;

  constructor(starts: Starting[]) {
    this.until = new Map(
      starts.filter(({ at, end }) => typeof at === "bigint" && at < end).map(({ partition, end }) => [partition, end]),
    );
  }

  /** By time, but never against the order of a partition, whatever its timestamps say. */
  byTime(): Row[] {
    const latest = new Map<number, number>();
    const timed = this.rows.map((row) => {
      const at = Math.max(row.timestamp, latest.get(row.partition) ?? row.timestamp);
      latest.set(row.partition, at);
      return { at, row };
    });
    return timed.sort((a, b) => a.at - b.at).map(({ row }) => row);
  }
}

export function toRow(record: ConsumerRecord): Row {
  const { partition, offset, key, value, headers } = record;
  return { partition, offset, timestamp: Number(record.timestamp), key, value, headers };
}

function startAt(start: Start, recent: bigint): StartAt {
  switch (start.kind) {
    case "recent":
      return recent;
    case "offset":
      return start.offset;
    case "time":
      return { timestamp: start.ms };
    case "earliest":
    case "latest":
      return start.kind;
  }
}

function max(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}

/** Lets events and frames have their turn; unlike a timer it is not slowed down in a hidden tab. */
export function breathe(): Promise<void> {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}
