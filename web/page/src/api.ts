// The server behind this page: one client, and what is asked of it again and again.

import { Client, ComlogError, type PartitionInfo, type TopicDescription } from "comlog";
import { sharedTail } from "comlog/shared";

import { Cell } from "./cell";

export const client = new Client({ tail: sharedTail(), retry: { attemptsMax: 2, backoffMaxMs: 1_000 } });

/** Whether the server answers. */
export type Reach =
  { state: "unknown" } | { state: "up"; version: string } | { state: "down"; error: string; retryAt: number };

export const reach = new Cell<Reach>({ state: "unknown" });

/** How long between two looks at a server that answers, and one that does not. */
const LOOK_MS = 5_000;
const RETRY_MS = 2_000;

/** Looks whether the server is there, and which one it is, as long as the page is open. */
export async function watchServer(): Promise<never> {
  for (;;) {
    await lookNow();
    await Promise.race([wait(reach.value.state === "down" ? RETRY_MS : LOOK_MS), awakened()]);
  }
}

export async function lookNow(): Promise<void> {
  try {
    const answer = await fetch("/version", { cache: "no-store", signal: AbortSignal.timeout(LOOK_MS) });
    if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
    const version = (await answer.text()).trim();
    const known = reach.value;
    if (known.state !== "up" || known.version !== version) reach.value = { state: "up", version };
  } catch (error) {
    const text = error instanceof DOMException ? "it does not answer" : "connection refused or lost";
    reach.value = { state: "down", error: text, retryAt: Date.now() + RETRY_MS };
  }
}

/** When the machine wakes, the network is back or the page is looked at again. */
function awakened(): Promise<void> {
  return new Promise((resolve) => {
    const listening = new AbortController();
    const done = (): void => {
      if (document.hidden) return;
      listening.abort();
      resolve();
    };
    addEventListener("online", done, { signal: listening.signal });
    document.addEventListener("visibilitychange", done, { signal: listening.signal });
  });
}

export function wait(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

/** An error in one line: what it is, and its code for those who look it up. */
export function explain(error: unknown): string {
  if (!(error instanceof ComlogError)) return error instanceof Error ? error.message : String(error);
  const code = error.reason ?? error.code;
  return `${error.message} (${code})`;
}

export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}

/** Where a topic stands, summed over its partitions. */
export interface Totals {
  records: bigint;
  bytes: bigint;
  /** Sum of the high watermarks: how much was ever appended. */
  appended: bigint;
  segments: number;
  /** Partitions that failed or hold damaged ranges. */
  troubled: number;
}

export function totals(topic: TopicDescription): Totals {
  const sum: Totals = { records: 0n, bytes: 0n, appended: 0n, segments: 0, troubled: 0 };
  for (const partition of topic.partitions) {
    sum.records += partition.highWatermark - partition.logStartOffset;
    sum.bytes += BigInt(partition.sizeBytes);
    sum.appended += partition.highWatermark;
    sum.segments += partition.segments;
    if (isTroubled(partition)) sum.troubled += 1;
  }
  return sum;
}

export function isTroubled(partition: PartitionInfo): boolean {
  return Boolean(partition.failure) || partition.damaged.length > 0;
}
