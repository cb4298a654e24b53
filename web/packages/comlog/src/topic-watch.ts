import { timerMs } from './abort.js';
import type { Calls } from './calls.js';
import { ComlogError } from './error.js';
import { partitionsOf } from './topic.js';
import type { StartAt } from './wire.js';

/** Whom a {@link TopicWatch} tells. */
export interface TopicWatcher {
  /** A partition is to be read; `late` when it was not there at first. */
  added(topic: string, partition: number, at: StartAt | undefined, late: boolean): void;
  /** A topic cannot be read; it is asked for again later. */
  failed(error: ComlogError): void;
}

/** Finds the partitions of topics, and those that are added later. */
export class TopicWatch {
  readonly #calls: Calls;
  readonly #ageMs: number;
  readonly #watcher: TopicWatcher;
  readonly #topics = new Map<string, { at: StartAt | undefined; partitions: number; failure: string | undefined }>();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(calls: Calls, ageMs: number, watcher: TopicWatcher) {
    this.#calls = calls;
    this.#ageMs = ageMs;
    this.#watcher = watcher;
  }

  /** Watches a topic; partitions that are there now start at `at`. */
  add(topic: string, at: StartAt | undefined): void {
    this.#topics.set(topic, { at, partitions: 0, failure: undefined });
    void this.#ask(topic);
    this.#timer ??= setInterval(() => this.#topics.forEach((_, name) => void this.#ask(name)), timerMs(this.#ageMs));
  }

  clear(): void {
    this.#topics.clear();
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  async #ask(name: string): Promise<void> {
    const asked = this.#topics.get(name);
    if (asked === undefined) return;
    try {
      const described = await this.#calls.again((call) => this.#calls.topics.describeTopic({ name }, call));
      const partitions = partitionsOf(described.topic);
      if (this.#topics.get(name) !== asked) return;
      const first = asked.partitions === 0 && asked.failure === undefined;
      const from = asked.partitions;
      asked.partitions = Math.max(from, partitions);
      asked.failure = undefined;
      for (let partition = from; partition < partitions; partition += 1) {
        this.#watcher.added(name, partition, first ? asked.at : undefined, !first);
      }
    } catch (error) {
      if (this.#topics.get(name) !== asked || this.#calls.closed.aborted) return;
      this.#failed(asked, error);
      // Without its partitions nothing can be read: no need to wait for the next round.
      if (asked.partitions === 0 && error instanceof ComlogError && error.retryable) await this.#ask(name);
    }
  }

  /** The same failure is told once, one that may pass not at all. */
  #failed(asked: { partitions: number; failure: string | undefined }, reason: unknown): void {
    const error = reason instanceof ComlogError ? reason : new ComlogError('INTERNAL', String(reason), { cause: reason });
    const failure = error.reason ?? error.code;
    if (failure === asked.failure || error.retryable) return;
    asked.failure = failure;
    this.#watcher.failed(error);
  }
}
