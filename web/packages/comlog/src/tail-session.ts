import type { MessageInitShape } from '@bufbuild/protobuf';

import { abortable } from './abort.js';
import type { Calls } from './calls.js';
import { ComlogError } from './error.js';
import { followedKey, type Followed } from './followed.js';
import type { Form, TailChangeSchema, TailPosition, TailResponse } from './gen/comlog/v1/log_pb.js';
import { fromCall } from './status.js';
import { incomplete } from './topic.js';

type Change = MessageInitShape<typeof TailChangeSchema>;

/** Most changes in one call: below the server's bound on the partitions of a tail. */
const CHANGES_MAX = 500;

/** What an update was refused with that says: this stream is over. */
const STREAM_IS_OVER: ReadonlySet<string | undefined> = new Set([undefined, 'TAIL_NOT_FOUND', 'SHUTTING_DOWN']);

/** One Tail call, and the UpdateTail calls that tell it what to follow. */
export class TailSession {
  readonly #calls: Calls;
  readonly #followed: Map<string, Followed>;
  readonly #controller = new AbortController();
  #tailId: string | undefined;
  /** The update under way; messages wait for it, since only its answer says what they belong to. */
  #updating: Promise<void> | undefined;
  #dirty = false;

  constructor(calls: Calls, followed: Map<string, Followed>) {
    this.#calls = calls;
    this.#followed = followed;
  }

  /** Ends the stream; `messages` then throws `reason`. */
  abort(reason = new ComlogError('CANCELLED', 'the stream is not needed any more')): void {
    this.#controller.abort(reason);
  }

  /** The messages of the stream, each once what it belongs to is known. */
  async *messages(form: Form, maxBytes: number): AsyncGenerator<TailResponse, void, undefined> {
    const { signal } = this.#controller;
    try {
      const stream = this.#calls.logs.tail({ form, maxBytes }, { signal });
      for await (const message of until(stream, signal)) {
        if (message.kind.case === 'opened') {
          this.#tailId = message.kind.value.tailId;
          this.update();
        }
        while (this.#updating !== undefined) await abortable(this.#updating, signal);
        yield message;
      }
    } catch (error) {
      signal.throwIfAborted();
      throw fromCall(error);
    }
  }

  /** Tells the server what has changed, unless that is under way. */
  update(): void {
    this.#dirty = true;
    if (this.#tailId === undefined || this.#updating !== undefined || this.#controller.signal.aborted) return;
    this.#updating = this.#updateAll(this.#tailId)
      .catch((error: unknown) => this.abort(fromCall(error)))
      .finally(() => {
        this.#updating = undefined;
        // Something may have changed behind the last look.
        if (this.#dirty) this.update();
      });
  }

  async #updateAll(tailId: string): Promise<void> {
    // What changes in the same turn is told together.
    await Promise.resolve();
    while (this.#dirty) {
      this.#dirty = false;
      const changed = [...this.#followed.values()].filter((f) => f.isToBeRemoved || f.isToBeAdded);
      for (let at = 0; at < changed.length; at += CHANGES_MAX) {
        await this.#tell(tailId, changed.slice(at, at + CHANGES_MAX));
      }
    }
  }

  /** Tells of several partitions at once; if that is refused, one by one, to know whose fault it is. */
  async #tell(tailId: string, changed: Followed[]): Promise<void> {
    try {
      await this.#call(tailId, changed);
    } catch (reason) {
      const error = fromCall(reason);
      const [only] = changed;
      if (STREAM_IS_OVER.has(error.reason) || only === undefined) throw error;
      if (changed.length > 1) {
        for (const one of changed) await this.#tell(tailId, [one]);
      } else if (only.isToBeRemoved) {
        throw error;
      } else {
        only.fail(error);
        this.#followed.delete(followedKey(only.topic, only.partition));
      }
    }
  }

  async #call(tailId: string, changed: Followed[]): Promise<void> {
    const changes: Change[] = [];
    const added = new Set<Followed>();
    for (const followed of changed) {
      const { topic, partition, position } = followed;
      if (followed.isToBeRemoved) changes.push({ topic, partition, change: { case: 'remove', value: {} } });
      if (followed.isToBeAdded) {
        const at = { at: { case: 'offset' as const, value: position } };
        changes.push({ topic, partition, change: { case: 'add', value: at } });
        added.add(followed);
      }
    }
    const { signal } = this.#controller;
    const update = { tailId, changes };
    const { positions } = await this.#calls.once((call) => this.#calls.logs.updateTail(update, call), { signal });
    for (const followed of changed) {
      followed.wasTold(added.has(followed));
      if (!followed.told && !followed.isWanted) this.#followed.delete(followedKey(followed.topic, followed.partition));
    }
    for (const position of positions) this.#confirm(position, added);
    for (const followed of added) {
      if (followed.generation === undefined) followed.fail(incomplete(`where ${followed.topic}/${followed.partition} goes on`));
    }
  }

  #confirm({ topic, partition, offset, generation }: TailPosition, added: Set<Followed>): void {
    const followed = this.#followed.get(followedKey(topic, partition));
    if (followed !== undefined && added.has(followed) && offset >= 0n) followed.confirmed(generation, offset);
  }
}

/** What comes until the signal is aborted, whether or not its source minds that. */
async function* until<T>(source: AsyncIterable<T>, signal: AbortSignal): AsyncGenerator<T, void, undefined> {
  const iterator = source[Symbol.asyncIterator]();
  for (;;) {
    const { done, value } = await abortable(iterator.next(), signal);
    if (done) return;
    yield value;
  }
}
