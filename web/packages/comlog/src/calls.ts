/** Calls of the server: headers, timeouts, retries, and errors as {@link ComlogError}. */
import type { CallOptions as ConnectOptions, Client, Interceptor } from '@connectrpc/connect';
import { createGrpcWebTransport } from '@connectrpc/connect-web';

import { anySignal, sleep } from './abort.js';
import { ComlogError } from './error.js';
import { GroupService } from './gen/comlog/v1/group_pb.js';
import { LogService } from './gen/comlog/v1/log_pb.js';
import { TopicService } from './gen/comlog/v1/topic_pb.js';
import type { CallOptions, ClientSettings } from './options.js';
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
    for (let failures = 1; ; failures += 1) {
      try {
        return await this.once(call, options);
      } catch (error) {
        const hopeless = !(error instanceof ComlogError) || !error.retryable || this.closed.aborted;
        if (hopeless || failures >= retry.attemptsMax) throw error;
      }
      await sleep(retry.backoffMs(failures, Math.random()), options.signal);
    }
  }

  /** Makes a call once. */
  async once<T>(call: (options: ConnectOptions) => Promise<T>, options: CallOptions = {}): Promise<T> {
    const any = anySignal([options.signal, this.closed]);
    try {
      any.signal.throwIfAborted();
      return await call({ signal: any.signal, timeoutMs: options.timeoutMs ?? this.settings.timeoutMs });
    } catch (error) {
      any.signal.throwIfAborted();
      throw fromCall(error);
    } finally {
      any.release();
    }
  }
}
