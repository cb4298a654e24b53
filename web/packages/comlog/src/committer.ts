import { timerMs } from './abort.js';
import type { Calls } from './calls.js';
import { ComlogError } from './error.js';
import { commitOffsets, type GroupOffset } from './groups.js';
import type { CallOptions } from './options.js';

/** Commits positions, one call at a time, so that a later commit is never overtaken. */
export class Committer {
  readonly #calls: Calls;
  readonly #group: string | undefined;
  readonly #intervalMs: number | undefined;
  readonly #positions: () => GroupOffset[];
  /** What is handed out and done with: everything handed out before the last poll. */
  #done: GroupOffset[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;
  #last: Promise<unknown> = Promise.resolve();

  constructor(calls: Calls, group: string | undefined, intervalMs: number | undefined, positions: () => GroupOffset[]) {
    this.#calls = calls;
    this.#group = group;
    this.#intervalMs = intervalMs;
    this.#positions = positions;
  }

  /** @throws ComlogError INVALID_ARGUMENT when there is none. */
  get group(): string {
    if (this.#group !== undefined) return this.#group;
    throw new ComlogError('INVALID_ARGUMENT', 'commits need a group');
  }

  /** The application asks for more: it is done with what it got. */
  handedOutIsDone(): void {
    if (this.#intervalMs === undefined) return;
    this.#done = this.#positions();
    this.#timer ??= setTimeout(() => this.#commitDone(), timerMs(this.#intervalMs));
  }

  /** Commits behind the commits before. */
  commit(offsets: readonly GroupOffset[], options?: CallOptions): Promise<void> {
    const { group } = this;
    const commit = async () => {
      if (offsets.length > 0) await commitOffsets(this.#calls, group, offsets, options);
    };
    const committed = this.#last.then(commit);
    this.#last = committed.catch(() => {});
    return committed;
  }

  /** Waits for commits under way, and commits `positions` if that was to happen by itself. */
  async close(positions: readonly GroupOffset[]): Promise<void> {
    clearTimeout(this.#timer);
    await this.#last;
    if (this.#intervalMs !== undefined) await this.commit(positions);
  }

  #commitDone(): void {
    this.#timer = undefined;
    // The next one includes what this one could not.
    this.commit(this.#done).catch(() => {});
  }
}
