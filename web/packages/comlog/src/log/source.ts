/** Where the bytes of a segment come from. */

import { ComlogError, type Code } from '../error.js';
import { invalid } from './frame.js';

/** Bytes that are read range by range. */
export interface RangeSource {
  /** In bytes. */
  readonly size: number;
  /** The bytes from `start` to `end` (exclusive), all of them. */
  read(start: number, end: number, signal?: AbortSignal): Promise<Uint8Array>;
}

/** What a segment can be opened from; a `File` is a `Blob`. */
export type SegmentSource = Uint8Array | ArrayBuffer | Blob | RangeSource;

/** The ranges of whatever a segment is opened from. */
export function rangesOf(source: SegmentSource): RangeSource {
  if (source instanceof ArrayBuffer) return rangesOf(new Uint8Array(source));
  if (source instanceof Uint8Array) {
    return { size: source.length, read: async (start, end) => source.subarray(start, end) };
  }
  if (typeof Blob === 'function' && source instanceof Blob) {
    const read = async (start: number, end: number) =>
      new Uint8Array(await source.slice(start, end).arrayBuffer());
    return { size: source.size, read };
  }
  if ('read' in source && Number.isSafeInteger(source.size) && source.size >= 0) return source;
  throw invalid('a segment is opened from bytes, a Blob, or an object with size and read()');
}

/** The base offset that a segment's file is named by, on a server or, with more behind it, in an archive. */
export function offsetOfName(name: unknown): bigint | undefined {
  const found = typeof name === 'string' ? /^(\d{20})(-.*)?\.log$/.exec(name) : null;
  return found ? BigInt(found[1]!) : undefined;
}

export interface HttpOptions {
  /** Default: the global `fetch`. */
  fetch?: typeof globalThis.fetch | undefined;
  /** Sent with each request. */
  headers?: HeadersInit | undefined;
  signal?: AbortSignal | undefined;
}

/**
 * A file on a web server, read by range requests, so that only what is needed is loaded. A server of
 * another origin must allow the header `Range` and expose `Content-Range`.
 *
 * @throws ComlogError NOT_FOUND, PERMISSION_DENIED, UNAVAILABLE; UNIMPLEMENTED when the server does
 * not answer ranges (fetch the whole file then, and open its bytes)
 */
export async function httpSource(url: string | URL, options: HttpOptions = {}): Promise<RangeSource> {
  const first = await getRange(url, 0, 1, options, options.signal);
  const size = sizeOf(first);
  await first.body?.cancel();
  const read = async (start: number, end: number, signal?: AbortSignal) => {
    const response = await getRange(url, start, end, options, signal);
    if (sizeOf(response) !== size) {
      throw new ComlogError('ABORTED', `${String(url)} has changed while it was read`);
    }
    return bodyOf(url, response, signal);
  };
  return { size, read };
}

/**
 * All of a file.
 *
 * @throws ComlogError as {@link httpSource}
 */
export async function getWhole(url: URL, options: HttpOptions, signal: AbortSignal | undefined): Promise<Uint8Array> {
  const response = await get(url, new Headers(options.headers), options.fetch, signal);
  if (!response.ok) throw await refused(url, response, 'a request');
  return bodyOf(url, response, signal);
}

async function getRange(
  url: string | URL,
  start: number,
  end: number,
  { fetch, headers }: HttpOptions,
  signal: AbortSignal | undefined,
): Promise<Response> {
  const all = new Headers(headers);
  all.set('Range', `bytes=${start}-${end - 1}`);
  const response = await get(url, all, fetch, signal);
  // An empty file has no range: its size stands in the header all the same.
  if (response.status === 206 || (response.status === 416 && start === 0)) return response;
  throw await refused(url, response, 'a range request');
}

async function get(
  url: string | URL,
  headers: Headers,
  fetch = globalThis.fetch,
  signal: AbortSignal | undefined,
): Promise<Response> {
  try {
    return await fetch(url, { headers, ...(signal && { signal }) });
  } catch (cause) {
    throw unreachable(url, cause, signal);
  }
}

/** The body, which can break off like the call itself. */
async function bodyOf(url: string | URL, response: Response, signal: AbortSignal | undefined): Promise<Uint8Array> {
  try {
    return new Uint8Array(await response.arrayBuffer());
  } catch (cause) {
    throw unreachable(url, cause, signal);
  }
}

function unreachable(url: string | URL, cause: unknown, signal: AbortSignal | undefined): ComlogError {
  signal?.throwIfAborted();
  return new ComlogError('UNAVAILABLE', `${String(url)} cannot be fetched: ${String(cause)}`, { cause });
}

async function refused(url: string | URL, response: Response, what: string): Promise<ComlogError> {
  await response.body?.cancel();
  return new ComlogError(codeOf(response.status), `${String(url)} answers ${response.status} to ${what}`);
}

function codeOf(status: number): Code {
  if (status === 401) return 'UNAUTHENTICATED';
  if (status === 403) return 'PERMISSION_DENIED';
  if (status === 404 || status === 410) return 'NOT_FOUND';
  if (status === 416) return 'OUT_OF_RANGE';
  return status >= 200 && status < 300 ? 'UNIMPLEMENTED' : 'UNAVAILABLE';
}

function sizeOf(response: Response): number {
  const size = /\/(\d+)$/.exec(response.headers.get('content-range') ?? '')?.[1];
  if (size !== undefined) return Number(size);
  throw new ComlogError('UNIMPLEMENTED', `${response.url} does not show its size in Content-Range`);
}
