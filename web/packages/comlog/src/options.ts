import { check, checkObject } from './check.js';
import { ComlogError } from './error.js';
import { RetryPolicy, type RetryOptions } from './retry.js';
import type { Connection, TailSource } from './feed.js';

/** Of every call. */
export interface CallOptions {
  /** Ends the call, which then rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
  /** For the call and its repetitions together, in milliseconds; default: that of the client. */
  timeoutMs?: number | undefined;
}

/** How a `Client` reaches the server. */
export interface ClientOptions {
  /** Where the server is (default: `location.origin`). A path is kept, for servers behind one. */
  url?: string | URL | undefined;
  /** Sent with every call, for instance `authorization`; a function is asked anew each time. */
  headers?: HeadersInit | (() => HeadersInit | Promise<HeadersInit>) | undefined;
  /** Used in place of `fetch`; called with `this` unset. */
  fetch?: typeof globalThis.fetch | undefined;
  /** How long a call may take, its repetitions included, in milliseconds (default 30,000). */
  timeoutMs?: number | undefined;
  /** When failed attempts are repeated. */
  retry?: RetryOptions | undefined;
  /** Where live records come from (default: a stream of this client); see `comlog/shared`. */
  tail?: TailSource | undefined;
  /** Called whenever the state of the live stream changes. */
  onConnection?: ((connection: Connection) => void) | undefined;
}

/** {@link ClientOptions} with everything set. */
export interface ClientSettings {
  url: string;
  headers: () => Promise<Headers>;
  fetch: typeof globalThis.fetch;
  timeoutMs: number;
  retry: RetryPolicy;
}

/** Checks the options and fills in the defaults. */
export function settle(options: ClientOptions): ClientSettings {
  const { headers, fetch } = checkObject('options', options);
  return {
    url: resolveUrl(options.url),
    headers: async () => new Headers(typeof headers === 'function' ? await headers() : headers),
    // Looked up at each call, so that what replaces it later is used.
    fetch: (input, init) => (fetch ?? globalThis.fetch)(input, init),
    timeoutMs: positive('timeoutMs', options.timeoutMs ?? 30_000),
    retry: new RetryPolicy(options.retry),
  };
}

function resolveUrl(url: string | URL | undefined): string {
  const origin = globalThis.location?.origin;
  const base = origin === 'null' ? undefined : origin;
  if (url === undefined && base === undefined) {
    throw new ComlogError('INVALID_ARGUMENT', 'outside of a browser a client needs options.url');
  }
  let parsed: URL;
  try {
    parsed = new URL(url ?? '', base);
  } catch (cause) {
    throw new ComlogError('INVALID_ARGUMENT', `options.url is no URL: ${String(url)}`, { cause });
  }
  if (parsed.protocol !== 'http:' && parsed.protocol !== 'https:') {
    throw new ComlogError('INVALID_ARGUMENT', `options.url must be http or https: ${parsed.href}`);
  }
  return `${parsed.origin}${parsed.pathname}`.replace(/\/+$/, '');
}

/** A number above 0. */
export function positive(name: string, value: number): number {
  return check(typeof value === 'number' && value > 0, name, 'a number above 0', value);
}
