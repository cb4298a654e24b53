import type { ComlogError } from './error.js';
import type { Piece } from './feed.js';
import type { Inbox } from './inbox.js';

/** Identifies a partition among all topics. */
export function followedKey(topic: string, partition: number): string {
  // No topic's name contains a slash.
  return `${partition}/${topic}`;
}

/** One partition of a stream: those who follow it, where the stream stands, what the server knows. */
export class Followed {
  readonly topic: string;
  readonly partition: number;
  /** The next record that the stream will bring. */
  position: bigint;
  /** Messages of other generations are dropped; `undefined` until the server has named it. */
  generation: bigint | undefined;
  /** Whether the server was told to follow it. */
  told = false;
  /** Whether the server has to be told to begin anew before anybody can join. */
  #stale = false;
  readonly #inboxes = new Set<Inbox>();

  constructor(topic: string, partition: number, position: bigint) {
    this.topic = topic;
    this.partition = partition;
    this.position = position;
  }

  /** Whether anybody follows it. */
  get isWanted(): boolean {
    return this.#inboxes.size > 0;
  }

  /** Whether the server has to forget it, maybe to begin anew. */
  get isToBeRemoved(): boolean {
    return this.told && (!this.isWanted || this.#stale);
  }

  /** Whether the server has to be told to follow it. */
  get isToBeAdded(): boolean {
    return this.isWanted && (!this.told || this.#stale);
  }

  /** `offset` is where the newcomer stands. */
  join(inbox: Inbox, offset: bigint): void {
    if (!this.isWanted && (!this.told || this.#stale)) this.position = offset;
    this.#inboxes.add(inbox);
    if (this.generation !== undefined && !this.#stale) inbox.goLive(this.position);
  }

  /** Whether the last one has left. */
  leave(inbox: Inbox): boolean {
    return this.#inboxes.delete(inbox) && !this.isWanted;
  }

  /** The server was told to follow it, or to forget it. */
  wasTold(told: boolean): void {
    this.told = told;
    this.#stale = false;
    this.generation = undefined;
  }

  /** The server has begun: everything from `position` on will come. */
  confirmed(generation: bigint, position: bigint): void {
    this.generation = generation;
    this.position = position;
    for (const inbox of this.#inboxes) inbox.goLive(position);
  }

  /** Hands a piece to everybody; whether the last one has left over it. */
  deliver(piece: Piece): boolean {
    this.position = piece.nextOffset;
    for (const inbox of [...this.#inboxes]) {
      if (!inbox.push(piece)) this.#inboxes.delete(inbox);
    }
    return !this.isWanted;
  }

  /** It cannot be followed: everybody is told and has left. */
  fail(error: ComlogError): void {
    this.#stale = true;
    this.generation = undefined;
    const inboxes = [...this.#inboxes];
    this.#inboxes.clear();
    for (const inbox of inboxes) inbox.end(error);
  }

  /** There is no stream any more; the next one goes on at `position`. */
  lostStream(): void {
    this.wasTold(false);
  }
}
