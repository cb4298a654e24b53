// The one log in this tab: opened once, kept while the page is open, whichever view is shown.

import { init, MemoryLog, type RecordInput as LogInput } from "comlog/log";

import { Cell } from "./cell";
import type { Sink } from "./generator";
import type { AppendOptions, Target } from "./views/produce";

/** Bytes of batches it keeps unless told otherwise; beyond, the oldest segment is dropped. */
export const BYTES_MAX = 64 * 1024 * 1024;

/** Grows with every change, so that views look again. */
export const changes = new Cell(0);

let opened: MemoryLog | undefined;

/** The log, opened when it is first wanted; loads the wasm module. */
export async function localLog(): Promise<MemoryLog> {
  if (opened && !opened.closed) return opened;
  await init();
  opened = await MemoryLog.open({ bytesMax: BYTES_MAX });
  return opened;
}

/** Gives its memory back; the next use opens an empty one. */
export function closeLocalLog(): void {
  opened?.close();
  opened = undefined;
  changed();
}

export function changed(): void {
  changes.value += 1;
}

/** Appends to the log in this tab. */
export class LocalTarget implements Target {
  constructor(readonly log: MemoryLog) {}

  async append(records: LogInput[], { compression }: AppendOptions): Promise<string> {
    const { nextOffset } = this.log.append(records, { compression });
    changed();
    return String(nextOffset - 1n);
  }

  sink({ compression }: AppendOptions): Sink {
    return {
      trySend: async (record) => {
        this.log.append(record, { compression });
        changed();
      },
      ready: async () => undefined,
    };
  }
}
