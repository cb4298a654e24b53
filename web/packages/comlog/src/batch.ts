import type { MessageInitShape } from '@bufbuild/protobuf';

import { deferred, type Deferred } from './abort.js';
import type { ComlogError } from './error.js';
import type { RecordSchema } from './gen/comlog/v1/common_pb.js';
import type { Appended } from './wire.js';

/** Where a record landed. */
export interface Delivered {
  topic: string;
  partition: number;
  /** `undefined` when a retry found the record in the log and its offset was forgotten already. */
  offset: bigint | undefined;
  /** Unix milliseconds, on topics that stamp it. */
  appendTime: bigint | undefined;
  /** A sync has covered it. */
  durable: boolean;
}

/** What was sent between two flushes. */
export class Flight {
  /** No more records join it: what it holds is to go out now. */
  closed = false;
  #unfinished = 0;
  readonly #done = deferred<void>();

  add(): void {
    this.#unfinished += 1;
  }

  finish(): void {
    this.#unfinished -= 1;
    this.#check();
  }

  /** Resolves when all of its records are acknowledged or have failed. */
  close(): Promise<void> {
    this.closed = true;
    this.#check();
    return this.#done.promise;
  }

  #check(): void {
    if (this.closed && this.#unfinished === 0) this.#done.resolve();
  }
}

/** A record on its way. */
export interface Item {
  readonly topic: string;
  readonly partition: number | undefined;
  readonly wire: MessageInitShape<typeof RecordSchema>;
  /** What it counts towards the producer's bounds. */
  readonly bytes: number;
  /** `performance.now()` when it was sent. */
  readonly sentAt: number;
  readonly delivered: Deferred<Delivered>;
  /** Set once it is taken into the buffer. */
  flight: Flight | undefined;
}

/** Records of one partition that are sent together. */
export class Batch {
  readonly items: Item[] = [];
  /** `performance.now()` when its first record was sent. */
  readonly sentAt: number;
  bytes = 0;

  constructor(sentAt: number) {
    this.sentAt = sentAt;
  }

  /** Its records in batches of at most so many bytes, one record at least; or only itself. */
  split(bytesMax: number): Batch[] {
    let last = new Batch(this.sentAt);
    const parts = [last];
    for (const item of this.items) {
      if (last.items.length > 0 && last.bytes + item.bytes > bytesMax) parts.push((last = new Batch(item.sentAt)));
      last.add(item);
    }
    return parts;
  }

  add(item: Item): void {
    this.items.push(item);
    this.bytes += item.bytes;
  }

  /** Whether it waits for a flush. */
  get urgent(): boolean {
    return this.items.some((item) => item.flight?.closed);
  }

  /** It is in the log; `appended` says where, if that is known. */
  resolve(topic: string, partition: number, appended: Appended | undefined): void {
    const { appendTime, durable = true, baseOffset } = appended ?? {};
    this.items.forEach((item, index) => {
      const offset = baseOffset === undefined ? undefined : baseOffset + BigInt(index);
      item.delivered.resolve({ topic, partition, offset, appendTime, durable });
    });
  }

  reject(error: ComlogError): void {
    for (const item of this.items) item.delivered.reject(error);
  }
}
