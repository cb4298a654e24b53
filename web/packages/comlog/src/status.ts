/** From errors of the wire to {@link ComlogError}: the only place that knows both. */
import { BinaryReader } from '@bufbuild/protobuf/wire';
import { ConnectError } from '@connectrpc/connect';

import { CODES, ComlogError, type Code, type ErrorDetails } from './error.js';
import { Reason as WireReason, type Error as WireError } from './gen/comlog/v1/common_pb.js';

/** The domain of the server's `google.rpc.ErrorInfo`. */
const DOMAIN = 'comlog.v1';
const ERROR_INFO = 'google.rpc.ErrorInfo';

/** Codes that a failure outside the server may keep; every other one means a broken connection. */
const LOCAL: ReadonlySet<Code> = new Set<Code>([
  'CANCELLED',
  'DEADLINE_EXCEEDED',
  'UNAUTHENTICATED',
  'PERMISSION_DENIED',
  'UNIMPLEMENTED',
  'RESOURCE_EXHAUSTED',
]);

/** What Connect says of a message that cannot be written: the field follows. */
const NOT_SENT = 'serialize binary: ';

/** What a call was rejected with, as a {@link ComlogError}. */
export function fromCall(reason: unknown): ComlogError {
  if (reason instanceof ComlogError) return reason;
  const error = ConnectError.from(reason);
  const code = toCode(error.code);
  // Only a status that the server sent says anything about the call.
  const sent = error.metadata.has('grpc-status');
  if (!sent) {
    if (error.rawMessage.startsWith(NOT_SENT)) {
      return new ComlogError('INVALID_ARGUMENT', error.rawMessage, { reason: 'INVALID_REQUEST', cause: error });
    }
    const message = `cannot reach the server: ${error.rawMessage}`;
    return new ComlogError(LOCAL.has(code) ? code : 'UNAVAILABLE', message, { cause: error });
  }
  const details: ErrorDetails = { cause: error };
  for (const detail of error.details) {
    if ('type' in detail && detail.type === ERROR_INFO) {
      Object.assign(details, fromErrorInfo(detail.value));
    }
  }
  return new ComlogError(code, error.rawMessage, details);
}

/** An error that arrived inside a message. */
export function fromMessage(error: WireError | undefined): ComlogError {
  if (error === undefined) return new ComlogError('INTERNAL', 'the server sent an error without content');
  return new ComlogError(toCode(error.code), error.message, {
    reason: error.reason === WireReason.UNSPECIFIED ? undefined : WireReason[error.reason],
    topic: error.topic === '' ? undefined : error.topic,
    partition: error.partition,
    offset: error.offset,
    nextOffset: error.nextOffset,
  });
}

function toCode(code: number): Code {
  const name = CODES[code];
  return name === undefined || name === 'OK' ? 'UNKNOWN' : name;
}

/** Decodes a `google.rpc.ErrorInfo`: reason = 1, domain = 2, metadata = 3 (a map of strings). */
function fromErrorInfo(bytes: Uint8Array): ErrorDetails {
  const info = readStrings(bytes);
  if (info.get(2)?.[0] !== DOMAIN) return {};
  const metadata = new Map<string, string>();
  for (const entry of info.entries(3)) {
    const pair = readStrings(entry);
    metadata.set(pair.get(1)?.[0] ?? '', pair.get(2)?.[0] ?? '');
  }
  const partition = metadata.get('partition');
  const offset = metadata.get('offset');
  return {
    reason: info.get(1)?.[0],
    topic: metadata.get('topic'),
    partition: partition === undefined ? undefined : Number(partition),
    offset: toOffset(offset),
    nextOffset: toOffset(metadata.get('next_offset')),
  };
}

function toOffset(text: string | undefined): bigint | undefined {
  return text !== undefined && /^-?\d+$/.test(text) ? BigInt(text) : undefined;
}

/** The length-delimited fields of a message. */
function readStrings(bytes: Uint8Array) {
  const fields: { field: number; value: Uint8Array }[] = [];
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [field, type] = reader.tag();
    if (type === LENGTH_DELIMITED) fields.push({ field, value: reader.bytes() });
    else reader.skip(type, field);
  }
  const entries = (field: number) => fields.filter((f) => f.field === field).map((f) => f.value);
  const decoder = new TextDecoder();
  const get = (field: number): string[] => entries(field).map((value) => decoder.decode(value));
  return { entries, get };
}

const LENGTH_DELIMITED = 2;
