/** Live records of partitions: what consumers stand on, whoever holds the stream. */
import type { ClientSettings } from './options.js';
import type { ComlogError } from './error.js';
import type { LogRecord } from './record.js';

/** How the live stream is doing. */
export interface Connection {
  /**
   * `idle`: not needed; `connecting`: under way; `open`: live; `waiting`: broken, tried again at
   * `retryAt`.
   */
  readonly state: 'idle' | 'connecting' | 'open' | 'waiting';
  /** What broke it. */
  readonly error?: ComlogError | undefined;
  /** Unix milliseconds. */
  readonly retryAt?: number | undefined;
}

/** Records of one partition that arrived together. */
export interface Piece {
  /** In order; may begin before the offset that was asked for. */
  records: LogRecord[];
  /** Where to read on. */
  nextOffset: bigint;
  logStartOffset: bigint;
  highWatermark: bigint;
  /** What it counts towards bounds. */
  bytes: number;
}

/** Follows one partition live, from where it was joined. */
export interface Subscription {
  /**
   * Resolves once it is live: every record from this offset on will come. What lies between the
   * offset asked for and this one must be read otherwise.
   *
   * Rejects with a `ComlogError` when the partition cannot be followed.
   */
  readonly live: Promise<bigint>;
  /**
   * The next piece; `undefined` when the subscription has ended because too much was waiting: read
   * on otherwise and subscribe again.
   */
  next(signal: AbortSignal): Promise<Piece | undefined>;
  /** Ends it. */
  close(): void;
}

/** Live records of any number of partitions over one stream. */
export interface Feed {
  /** Follows a partition; `offset` is where the caller stands. */
  subscribe(topic: string, partition: number, offset: bigint): Subscription;
  readonly connection: Connection;
  /** Ends the stream. */
  close(): void;
}

/** Makes the {@link Feed} of a client. */
export type TailSource = (settings: ClientSettings, onConnection: (connection: Connection) => void) => Feed;
