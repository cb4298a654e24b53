import assert from 'node:assert/strict';
import { before, test } from 'node:test';

import { decodeBatches, encodeBatch, init } from 'comlog/node';

import { connect, fails, freshTopic, startServer, text } from './support.js';

const server = await startServer();
const client = connect(server);
before(() => init());

/** What the server may patch: base offset and leader epoch. */
const PATCHED = [...Array(8).keys(), 12, 13, 14, 15];

function unpatched(batch: Uint8Array): Uint8Array {
  const copy = batch.slice();
  for (const at of PATCHED) copy[at] = 0;
  return copy;
}

test('batches are appended and read back as they were encoded', async () => {
  const topic = freshTopic();
  const made = (['gzip', 'lz4', 'none'] as const).map((compression, n) =>
    encodeBatch([{ key: 'k', value: `${n} `.repeat(100) }, { value: null, timestamp: 5n }], { compression }),
  );
  const appended = await client.appendBatches({ topic, batches: Buffer.concat(made), expectedOffset: 0n });
  assert.deepEqual(appended.map(({ baseOffset, nextOffset }) => [baseOffset, nextOffset]), [[0n, 2n], [2n, 4n], [4n, 6n]]);
  assert.ok(appended.every(({ durable }) => durable));

  const read = await client.readBatches({ topic, offset: 0n });
  assert.deepEqual([read.nextOffset, read.logStartOffset, read.highWatermark], [6n, 0n, 6n]);
  const decoded = decodeBatches(read.batches);
  assert.deepEqual(decoded.map(({ compression }) => compression), ['gzip', 'lz4', 'none']);
  assert.deepEqual(decoded[2]!.records.map(({ offset, value }) => [offset, text(value)]), [[4n, '2 '.repeat(100)], [5n, null]]);
  let at = 0;
  for (const batch of made) {
    assert.deepEqual(unpatched(read.batches.subarray(at, at + batch.length)), unpatched(batch));
    at += batch.length;
  }
  assert.equal(at, read.batches.length);

  const inside = await client.readBatches({ topic, offset: 3n, maxBytes: 1 });
  assert.deepEqual([decodeBatches(inside.batches)[0]!.baseOffset, inside.nextOffset], [2n, 4n], 'whole batches');
});

test('of batches the first that is refused is told, and none behind it is in the log', async () => {
  const topic = freshTopic();
  const [first, damaged, last] = ['a', 'b', 'c'].map((value) => encodeBatch([{ value }])) as [Uint8Array, Uint8Array, Uint8Array];
  damaged[damaged.length - 1]! ^= 1;
  const batches = Buffer.concat([first, damaged, last]);
  await fails(client.appendBatches({ topic, batches }), 'INVALID_ARGUMENT', 'INVALID_RECORD_BATCH');
  assert.equal((await client.read({ topic, offset: 0n })).highWatermark, 1n);
  await fails(client.appendBatches({ topic, batches: first, expectedOffset: 0n }), 'FAILED_PRECONDITION', 'UNEXPECTED_OFFSET');
  await fails(client.appendBatches({ topic, batches: new Uint8Array() }), 'INVALID_ARGUMENT', 'INVALID_REQUEST');
});

test('a fencing token keeps out whoever has an older one', async () => {
  const topic = freshTopic();
  await client.append({ topic, records: [{ value: 'before' }] });
  assert.equal(await client.fence(topic, 0, 2n), 1n);
  const records = [{ value: 'x' }];
  const stale = await fails(client.append({ topic, records, fencingToken: 1n }), 'FAILED_PRECONDITION', 'FENCED');
  assert.equal(stale.topic, topic);
  const batches = encodeBatch(records);
  await fails(client.appendBatches({ topic, batches }), 'FAILED_PRECONDITION', 'FENCED');
  assert.equal((await client.append({ topic, records, fencingToken: 2n })).baseOffset, 1n);
  assert.equal((await client.describeTopic(topic)).partitions[0]!.fencingToken, 2n);
  await fails(client.fence(topic, 0, 2n), 'FAILED_PRECONDITION', 'STALE_FENCING_TOKEN');
});
