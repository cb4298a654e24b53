// Copies records between the log in this tab and the server. Records, not batches as they are encoded:
// those carry the number of whoever produced them, and another log would take them for repeated ones.

import type { MemoryLog } from "comlog/log";

import { client } from "./api";
import { breathe } from "./records/follow";

/** Bytes of records in one step. */
const STEP_BYTES = 256 * 1024;

export interface Place {
  topic: string;
  partition: number;
}

/** Called after each step with how many records were copied so far. */
export type OnStep = (copied: number) => void;

/** Copies everything from `from` to the end to the server, in order; the server gives new offsets. */
export async function copyToServer(
  log: MemoryLog,
  from: bigint,
  to: Place,
  onStep: OnStep,
  signal: AbortSignal,
): Promise<void> {
  let copied = 0;
  const end = log.stats().endOffset;
  let offset = max(from, log.stats().startOffset);
  while (offset < end) {
    signal.throwIfAborted();
    const { records, nextOffset } = log.read(offset, { maxBytes: STEP_BYTES });
    if (records.length > 0) await client.append({ ...to, records }, { signal });
    copied += records.length;
    offset = nextOffset;
    onStep(copied);
  }
}

/** Copies everything there is now, from `from` on, into the log in this tab. */
export async function copyFromServer(
  log: MemoryLog,
  from: bigint,
  source: Place,
  onStep: OnStep,
  signal: AbortSignal,
): Promise<void> {
  let copied = 0;
  const [found] = await client.listOffsets([{ ...source, at: "latest" }], { signal });
  const end = found?.highWatermark ?? 0n;
  let offset = max(from, found?.logStartOffset ?? 0n);
  while (offset < end) {
    const { records, nextOffset } = await client.read({ ...source, offset, maxBytes: STEP_BYTES }, { signal });
    const wanted = records.filter((record) => record.offset < end);
    if (wanted.length > 0) log.append(wanted);
    copied += wanted.length;
    offset = nextOffset;
    onStep(copied);
    await breathe();
  }
}

function max(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}
