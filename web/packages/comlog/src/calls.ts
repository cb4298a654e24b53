/** Calls of the server: headers, timeouts, retries, and errors as {@link ComlogError}. */
import type { CallOptions as ConnectOptions, Client, Interceptor } from '@connectrpc/connect';
import { createGrpcWebTransport } from '@connectrpc/connect-web';

import { abortable, anySignal, sleep, timerMs } from './abort.js';
import { ComlogError } from './error.js';
import { GroupService } from './gen/comlog/v1/group_pb.js';
import { LogService } from './gen/comlog/v1/log_pb.js';
import { TopicService } from './gen/comlog/v1/topic_pb.js';
import { positive, type CallOptions, type ClientSettings } from './options.js';
import { serviceClient } from './service.js';
import { fromCall } from './status.js';

/** The services of one server. */
export class Calls {
  readonly logs: Client<typeof LogService>;
  readonly topics: Client<typeof TopicService>;
  readonly groups: Client<typeof GroupService>;
  readonly settings: ClientSettings;
  readonly #closed = new AbortController();

  constructor(settings: ClientSettings) {
    this.settings = settings;
    const withHeaders: Interceptor = (next) => async (request) => {
      const headers = await settings.headers();
      headers.forEach((value, name) => request.header.set(name, value));
      return next(request);
    };
    const transport = createGrpcWebTransport({
      baseUrl: settings.url,
      fetch: settings.fetch,
      interceptors: [withHeaders],
    });
    this.logs = serviceClient(LogService, transport);
    this.topics = serviceClient(TopicService, transport);
    this.groups = serviceClient(GroupService, transport);
  }

  /** Aborted when the client is closed. */
  get closed(): AbortSignal {
    return this.#closed.signal;
  }

  /** Ends every call; they reject with CANCELLED. */
  close(): void {
    this.#closed.abort(new ComlogError('CANCELLED', 'the client is closed'));
  }

  /** Makes a call that may be made twice, until it succeeds or there is no hope. */
  async again<T>(call: (options: ConnectOptions) => Promise<T>, options: CallOptions = {}): Promise<T> {
    const { retry } = this.settings;
    const timeoutMs = options.timeoutMs ?? this.settings.timeoutMs;
    const until = performance.now() + timeoutMs;
    let leftMs = timeoutMs;
    for (let failures = 1; ; failures += 1) {
      const waitMs = retry.backoffMs(failures, Math.random());
      try {
        return await this.once(call, { ...options, timeoutMs: leftMs });
      } catch (error) {
        leftMs = until - performance.now() - waitMs;
        const hopeless = !(error instanceof ComlogError) || !error.retryable || this.closed.aborted;
        if (hopeless || failures >= retry.attemptsMax || leftMs <= 0) throw error;
      }
      await sleep(waitMs, options.signal);
    }
  }

  /** Makes a call once. */
  async once<T>(call: (options: ConnectOptions) => Promise<T>, options: CallOptions = {}): Promise<T> {
    const timeoutMs = positive('timeoutMs', options.timeoutMs ?? this.settings.timeoutMs);
    const late = new AbortController();
    const any = anySignal([options.signal, this.closed, late.signal]);
    const { signal } = any;
    const timer = setTimeout(() => late.abort(timedOut(timeoutMs)), timerMs(timeoutMs));
    try {
      signal.throwIfAborted();
      // Also when a hook of the caller never returns.
      return await abortable(call({ signal }), signal);
    } catch (error) {
      signal.throwIfAborted();
      throw fromCall(error);
    } finally {
      clearTimeout(timer);
      any.release();
    }
  }
}

function timedOut(timeoutMs: number): ComlogError {
  return new ComlogError('DEADLINE_EXCEEDED', `the server did not answer within ${Math.ceil(timeoutMs)} ms`);
}
