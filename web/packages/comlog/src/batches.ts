/** Batches as they are encoded: nothing in them is read on the way. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { CallOptions as ConnectOptions } from '@connectrpc/connect';

import type { Calls } from './calls.js';
import { checkBytes, checkInteger, checkOffset, checkPlace } from './check.js';
import type { AppendBatchesRequestSchema, Fetched, ReadRequestSchema } from './gen/comlog/v1/log_pb.js';
import { Form } from './gen/comlog/v1/log_pb.js';
import type { CallOptions } from './options.js';
import { fromMessage } from './status.js';
import { durabilityToWire, incomplete, nonsense, type Durability } from './topic.js';
import { appendedFromWire, type Appended } from './wire.js';

/** What `Client.read` and `Client.readBatches` read. */
export interface ReadRequest {
  topic: string;
  /** Default: 0. */
  partition?: number | undefined;
  offset: bigint;
  /** Most bytes to return, but at least one batch or record; default: the server's bound. */
  maxBytes?: number | undefined;
  /** Wait at most this long for a record; default: answer at once, empty at the end of the log. */
  maxWaitMs?: number | undefined;
}

/** What `Client.appendBatches` appends. */
export interface AppendBatchesRequest {
  topic: string;
  /** Default: 0. */
  partition?: number | undefined;
  /** One or more record batches back to back; `comlog/log` makes and reads them. */
  batches: Uint8Array;
  /** Default: the topic's, which is also a floor. */
  durability?: Durability | undefined;
  /** Refuse with UNEXPECTED_OFFSET unless the log ends here; for the first batch. */
  expectedOffset?: bigint | undefined;
  /** The partition's token, once one was set. */
  fencingToken?: bigint | undefined;
}

/** What `Client.readBatches` read. */
export interface BatchesRead {
  /** Whole batches back to back; the first may begin before the offset that was asked for. */
  batches: Uint8Array;
  /** Where to read on. */
  nextOffset: bigint;
  logStartOffset: bigint;
  highWatermark: bigint;
}

export async function appendBatches(
  calls: Calls,
  request: AppendBatchesRequest,
  options?: CallOptions,
): Promise<Appended[]> {
  // What is undefined is not sent, as if it were absent: only the types tell them apart.
  const message = { ...request, durability: durabilityToWire(request.durability) };
  checkPlace(request);
  checkBytes('batches', request.batches);
  if (request.expectedOffset !== undefined) checkOffset('expectedOffset', request.expectedOffset);
  const append = (call: ConnectOptions) =>
    calls.logs.appendBatches(message as MessageInitShape<typeof AppendBatchesRequestSchema>, call);
  const { results } = await calls.once(append, options);
  return results.map(({ result }) => {
    if (result.case === 'error') throw fromMessage(result.value);
    return appendedFromWire(result.value);
  });
}

export async function readBatches(
  calls: Calls,
  request: ReadRequest,
  options?: CallOptions,
): Promise<BatchesRead> {
  const { chunks, nextOffset, logStartOffset, highWatermark } = await fetchOnce(calls, request, Form.BATCHES, options);
  const batches = new Uint8Array(await new Blob(chunks as Uint8Array<ArrayBuffer>[]).arrayBuffer());
  if (nextOffset < request.offset) throw nonsense(`offset ${nextOffset} after ${request.offset}`);
  return { batches, nextOffset, logStartOffset, highWatermark };
}

/** Reads from exactly an offset on, in one form or the other. */
export async function fetchOnce(
  calls: Calls,
  request: ReadRequest,
  form: Form,
  options?: CallOptions,
): Promise<Fetched> {
  const message = { ...request, form } as MessageInitShape<typeof ReadRequestSchema>;
  checkPlace(request);
  checkOffset('offset', request.offset);
  for (const name of ['maxBytes', 'maxWaitMs'] as const) {
    const value = request[name];
    if (value !== undefined) checkInteger(name, value);
  }
  const { fetched } = await calls.again((call) => calls.logs.read(message, call), options);
  if (fetched === undefined) throw incomplete('what was fetched');
  return fetched;
}
