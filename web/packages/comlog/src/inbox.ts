import { abortable, deferred, type Deferred } from './abort.js';
import type { ComlogError } from './error.js';
import type { Piece, Subscription } from './feed.js';

/** The bounded queue between a stream and one reader: a {@link Subscription} seen from inside. */
export class Inbox implements Subscription {
  readonly #live = deferred<bigint>();
  readonly #pieces: Piece[] = [];
  readonly #bytesMax: number;
  readonly #onClose: (inbox: Inbox) => void;
  readonly #onTaken: (bytes: number) => void;
  #bytes = 0;
  #ended = false;
  #error: ComlogError | undefined;
  #arrival: Deferred<void> | undefined;

  /**
   * At most `bytesMax` wait, and one piece more. `onClose` is called when the reader has closed
   * it, `onTaken` whenever a piece was taken.
   */
  constructor(bytesMax: number, onClose: (inbox: Inbox) => void, onTaken: (bytes: number) => void = () => {}) {
    this.#bytesMax = bytesMax;
    this.#onClose = onClose;
    this.#onTaken = onTaken;
  }

  get live(): Promise<bigint> {
    return this.#live.promise;
  }

  async next(signal: AbortSignal): Promise<Piece | undefined> {
    for (;;) {
      const piece = this.#pieces.shift();
      if (piece !== undefined) {
        this.#bytes -= piece.bytes;
        this.#onTaken(piece.bytes);
        return piece;
      }
      if (this.#error !== undefined) throw this.#error;
      if (this.#ended) return undefined;
      this.#arrival ??= deferred();
      await abortable(this.#arrival.promise, signal);
    }
  }

  close(): void {
    this.end();
    this.#pieces.length = 0;
    this.#onClose(this);
  }

  /** Every record from `offset` on will be pushed. */
  goLive(offset: bigint): void {
    this.#live.resolve(offset);
  }

  /** Hands over a piece; `false` when that was too much, and the inbox has ended with it. */
  push(piece: Piece): boolean {
    if (this.#ended) return false;
    this.#pieces.push(piece);
    this.#bytes += piece.bytes;
    this.#wake();
    if (this.#bytes > this.#bytesMax) this.end();
    return !this.#ended;
  }

  /** Nothing more will come. What was pushed can still be taken. */
  end(error?: ComlogError): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#error = error;
    this.#live.reject(error ?? ENDED);
    this.#wake();
  }

  #wake(): void {
    this.#arrival?.resolve();
    this.#arrival = undefined;
  }
}

/** What `live` rejects with when the inbox has ended before it was live, without an error. */
export const ENDED = Symbol('the subscription has ended');
