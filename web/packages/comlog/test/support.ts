import assert from 'node:assert/strict';
import { after } from 'node:test';

import { Client, ComlogError, type ClientOptions, type Code, type ConsumerRecord } from 'comlog';

import { Server } from './server.js';

/** A server for the tests of one file. */
export async function startServer(...args: string[]): Promise<Server> {
  const server = await Server.start(...args);
  after(() => server.stop());
  return server;
}

/** A client of `server` for the tests of one file. */
export function connect(server: Server, options: ClientOptions = {}): Client {
  const client = new Client({ url: server.url, ...options });
  after(() => client.close());
  return client;
}

let topics = 0;

/** A name that no other test uses. */
export function freshTopic(): string {
  topics += 1;
  return `topic-${topics}`;
}

export function text(bytes: Uint8Array | null): string | null {
  return bytes === null ? null : new TextDecoder().decode(bytes);
}

export function values(records: readonly ConsumerRecord[]): (string | null)[] {
  return records.map(({ value }) => text(value));
}

/** `0` to `count - 1`, as text. */
export function numbers(count: number): string[] {
  return Array.from({ length: count }, (_, index) => String(index));
}

/** Rejects unless `promise` rejects with a ComlogError of this code and reason. */
export async function fails(promise: Promise<unknown>, code: Code, reason?: string): Promise<ComlogError> {
  const outcome: unknown = await promise.then(
    () => undefined,
    (error: unknown) => error,
  );
  assert.ok(outcome instanceof ComlogError, `expected ${code}, got ${String(outcome)}`);
  assert.equal(outcome.code, code, outcome.message);
  assert.equal(outcome.reason, reason, outcome.message);
  return outcome;
}

/** The next `count` records of a consumer. */
export async function take(
  consumer: { poll(options: { signal: AbortSignal }): Promise<ConsumerRecord[]> },
  count: number,
  signal = AbortSignal.timeout(60_000),
): Promise<ConsumerRecord[]> {
  const records: ConsumerRecord[] = [];
  while (records.length < count) records.push(...(await consumer.poll({ signal })));
  assert.equal(records.length, count);
  return records;
}
