/** One live stream for all tabs of an origin: see the README. Importing it does nothing. */
import type { TailSource } from '../feed.js';
import { TailHub } from '../tail-hub.js';
import { SharedFeed } from './shared-feed.js';

/** How tabs share. */
export interface SharedTailOptions {
  /**
   * Tabs share a stream if this is the same, and the server's URL. Needed when tabs of one origin
   * act for different users, since the stream is opened with the headers of any one of them.
   */
  key?: string | undefined;
  /** Makes the worker, for bundlers that do not know `new SharedWorker(new URL(..., import.meta.url))`. */
  worker?: (() => SharedWorker) | undefined;
}

/**
 * For `ClientOptions.tail`: the live stream runs in a SharedWorker. Where there is none, or it
 * cannot be started, the client uses a stream of its own.
 */
export function sharedTail(options: SharedTailOptions = {}): TailSource {
  const { key = '', worker = startWorker } = options;
  return (settings, onConnection) => {
    if (typeof SharedWorker === 'undefined') return TailHub.over(settings, onConnection);
    try {
      return new SharedFeed(worker(), key, settings, onConnection);
    } catch {
      // Not allowed here, for instance by a Content-Security-Policy.
      return TailHub.over(settings, onConnection);
    }
  };
}

function startWorker(): SharedWorker {
  return new SharedWorker(new URL('./worker.js', import.meta.url), { type: 'module', name: 'comlog' });
}
