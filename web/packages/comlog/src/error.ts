/** The canonical codes of gRPC. */
export const CODES = [
  'OK',
  'CANCELLED',
  'UNKNOWN',
  'INVALID_ARGUMENT',
  'DEADLINE_EXCEEDED',
  'NOT_FOUND',
  'ALREADY_EXISTS',
  'PERMISSION_DENIED',
  'RESOURCE_EXHAUSTED',
  'FAILED_PRECONDITION',
  'ABORTED',
  'OUT_OF_RANGE',
  'UNIMPLEMENTED',
  'INTERNAL',
  'UNAVAILABLE',
  'DATA_LOSS',
  'UNAUTHENTICATED',
] as const;

/** A canonical code of gRPC, by its name. */
export type Code = Exclude<(typeof CODES)[number], 'OK'>;

/**
 * Why a call failed, more exactly than the code: the names of `comlog.v1.Reason`. The table in
 * `proto/comlog/v1/common.proto` says what to do about each.
 */
export type Reason =
  | 'INVALID_REQUEST'
  | 'INVALID_TOPIC_NAME'
  | 'INVALID_RECORD_BATCH'
  | 'BATCH_TOO_LARGE'
  | 'TOPIC_NOT_FOUND'
  | 'PARTITION_NOT_FOUND'
  | 'TAIL_NOT_FOUND'
  | 'GROUP_NOT_FOUND'
  | 'TOPIC_EXISTS'
  | 'DUPLICATE_SEQUENCE'
  | 'OFFSET_OUT_OF_RANGE'
  | 'UNEXPECTED_OFFSET'
  | 'FENCED'
  | 'STALE_FENCING_TOKEN'
  | 'PRODUCER_FENCED'
  | 'OUT_OF_ORDER_SEQUENCE'
  | 'SUSPENDED'
  | 'STORAGE_FULL'
  | 'OVERLOADED'
  | 'CORRUPT'
  | 'PARTITION_FAILED'
  | 'INTERNAL'
  | 'SHUTTING_DOWN';

/** What an error is about; everything may be missing. */
export interface ErrorDetails {
  reason?: Reason | (string & {}) | undefined;
  topic?: string | undefined;
  partition?: number | undefined;
  offset?: bigint | undefined;
  nextOffset?: bigint | undefined;
  cause?: unknown;
}

/** What goes wrong in this package, apart from aborted signals: those reject with their own reason. */
export class ComlogError extends Error {
  override readonly name = 'ComlogError';
  /** The canonical code. */
  readonly code: Code;
  /** The reason the server gave; `undefined` when it did not come from comlog. */
  readonly reason: Reason | (string & {}) | undefined;
  readonly topic: string | undefined;
  readonly partition: number | undefined;
  /**
   * The offset the reason speaks of: where reading can go on for CORRUPT, the log end offset for
   * UNEXPECTED_OFFSET, for OFFSET_OUT_OF_RANGE the end of the log that was passed, for a read that meets
   * BATCH_TOO_LARGE the record that cannot be given.
   */
  readonly offset: bigint | undefined;
  /** Where reading can go on: for CORRUPT, and a read that meets BATCH_TOO_LARGE. */
  readonly nextOffset: bigint | undefined;

  constructor(code: Code, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    this.reason = details.reason;
    this.topic = details.topic;
    this.partition = details.partition;
    this.offset = details.offset;
    this.nextOffset = details.nextOffset;
  }

  /** Whether the same call may succeed later. Whether it may be made twice is for the caller to know. */
  get retryable(): boolean {
    switch (this.reason) {
      case undefined:
        return TRANSIENT.has(this.code);
      case 'SHUTTING_DOWN':
      case 'OVERLOADED':
        return true;
      default:
        return false;
    }
  }

  /** For logs: offsets are text, since JSON has no integers of 64 bits. */
  toJSON(): Record<string, string | number | undefined> {
    const { name, code, reason, message, topic, partition, offset, nextOffset } = this;
    const [at, next] = [offset, nextOffset].map((value) => value?.toString());
    return { name, code, reason, message, topic, partition, offset: at, nextOffset: next };
  }
}

const TRANSIENT: ReadonlySet<Code> = new Set<Code>([
  'UNAVAILABLE',
  'RESOURCE_EXHAUSTED',
  'ABORTED',
  'DEADLINE_EXCEEDED',
  'CANCELLED',
]);
