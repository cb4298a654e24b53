// Appending to a topic of the server, with an idempotent producer.

import type { Producer, ProducerRecord, RecordInput } from "comlog";

import { client } from "./api";
import type { Sink } from "./generator";
import type { AppendOptions, Compression, Target } from "./views/produce";

/** Records of one handful travel together. */
const LINGER_MS = 5;

export class ServerTarget implements Target {
  #open: { compression: Compression; producer: Producer } | undefined;

  constructor(
    readonly topic: string,
    lifetime: AbortSignal,
  ) {
    lifetime.addEventListener("abort", () => this.#close(), { once: true });
  }

  async append(records: RecordInput[], options: AppendOptions, signal: AbortSignal): Promise<string> {
    const producer = this.#producer(options.compression);
    const sent: Promise<{ partition: number; offset: bigint | undefined }>[] = [];
    for (const record of records) {
      await producer.ready({ signal });
      const sending = producer.send(this.#address(record, options));
      // All are awaited below; a failure before that must not count as unhandled.
      sending.catch(() => undefined);
      sent.push(sending);
    }
    const last = (await Promise.all(sent)).at(-1);
    return last ? `${last.partition}/${last.offset ?? "an offset since forgotten"}` : "";
  }

  sink(options: AppendOptions): Sink {
    const producer = this.#producer(options.compression);
    return {
      trySend: (record) => producer.trySend(this.#address(record, options)),
      ready: (signal) => producer.ready({ signal }).catch(() => undefined),
    };
  }

  /** The producer for this compression, made when it is first needed. */
  #producer(compression: Compression): Producer {
    if (this.#open?.compression !== compression) {
      this.#close();
      this.#open = { compression, producer: client.producer({ lingerMs: LINGER_MS, compression }) };
    }
    return this.#open.producer;
  }

  /** What it has taken is still sent; failures were told where they were awaited. */
  #close(): void {
    this.#open?.producer.close().catch(() => undefined);
    this.#open = undefined;
  }

  #address(record: RecordInput, { partition }: AppendOptions): ProducerRecord {
    return { ...record, topic: this.topic, ...(partition === undefined ? {} : { partition }) };
  }
}
