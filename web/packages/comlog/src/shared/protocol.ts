/** What tabs and the worker that holds their stream say to each other. */
import { ComlogError, type Code } from '../error.js';
import type { Connection, Piece } from '../feed.js';
import type { RetryOptions } from '../retry.js';

/** An error as it crosses a port, which keeps no class. */
export interface PlainError {
  code: Code;
  message: string;
  reason: string | undefined;
  topic: string | undefined;
  partition: number | undefined;
  offset: bigint | undefined;
  nextOffset: bigint | undefined;
}

/** From a tab. */
export type ToWorker =
  /** The first, also after `gone`: whose stream it wants to share. */
  | { type: 'open'; url: string; key: string; timeoutMs: number; retry: RetryOptions }
  | { type: 'subscribe'; id: number; topic: string; partition: number; offset: bigint }
  /** So many bytes of what was sent are taken. */
  | { type: 'taken'; id: number; bytes: number }
  | { type: 'unsubscribe'; id: number }
  | { type: 'headers'; headers: [string, string][] }
  /** The tab is seen again, or the network is back. */
  | { type: 'wake' }
  /** It is alive. */
  | { type: 'ping' }
  | { type: 'bye' };

/** From the worker. */
export type ToTab =
  /** Also the answer to `open`. */
  | { type: 'connection'; state: Connection['state']; retryAt: number | undefined; error: PlainError | undefined }
  | { type: 'live'; id: number; offset: bigint }
  | { type: 'piece'; id: number; piece: Piece }
  | { type: 'ended'; id: number; error: PlainError | undefined }
  /** Which headers to open the stream with? */
  | { type: 'headers' }
  /** The tab was silent for too long; what it had is gone. */
  | { type: 'gone' };

export function toPlain(error: ComlogError | undefined): PlainError | undefined {
  if (error === undefined) return undefined;
  const { code, message, reason, topic, partition, offset, nextOffset } = error;
  return { code, message, reason, topic, partition, offset, nextOffset };
}

export function fromPlain(plain: PlainError | undefined): ComlogError | undefined {
  return plain === undefined ? undefined : new ComlogError(plain.code, plain.message, plain);
}
