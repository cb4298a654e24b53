import assert from 'node:assert/strict';
import { before, test } from 'node:test';

import { ComlogError } from 'comlog';
import { Segment, decodeBatches, decodeRecords, encodeBatch, init } from 'comlog/node';

import { bomb } from './bomb.js';
import { connect, fails, freshTopic, startServer, take, text } from './support.js';

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

const MIB = 1 << 20;

test('a batch that decompresses beyond the bound is read in pieces, in the tab', async () => {
  const bytes = bomb(Array(70).fill(MIB));
  const offsets: bigint[] = [];
  for (let from: bigint | undefined = 0n; from !== undefined; ) {
    const { records, nextOffset } = decodeRecords(bytes, { from, maxBytes: 32 * MIB });
    offsets.push(...records.map(({ offset }) => offset));
    assert.ok(records.every(({ value }) => value?.length === MIB));
    from = nextOffset;
  }
  const all = Array.from({ length: 70 }, (_, at) => BigInt(at));
  assert.deepEqual(offsets, all);
  const segment = await Segment.open(bytes);
  const seen: bigint[] = [];
  const parts: boolean[] = [];
  for await (const item of segment.scan()) {
    assert.ok(item.kind === 'batch' && item.error === undefined && item.recordCount === 70);
    seen.push(...item.records.map(({ offset }) => offset));
    parts.push(item.more);
  }
  assert.deepEqual(seen, all);
  assert.ok(parts.length > 10);
  assert.deepEqual(parts.indexOf(false), parts.length - 1);
  segment.close();
});

test('a record beyond the bound is named by its offset and stepped over, in the tab', async () => {
  const bytes = bomb([3, 65 * MIB, 4]);
  const isNamed = (error: unknown) => {
    assert.ok(error instanceof ComlogError, String(error));
    const { reason, offset, nextOffset } = error;
    assert.deepEqual([reason, offset, nextOffset], ['BATCH_TOO_LARGE', 1n, 2n]);
    return true;
  };
  assert.equal(decodeRecords(bytes).nextOffset, 1n);
  assert.throws(() => decodeRecords(bytes, { from: 1n }), isNamed);
  assert.throws(() => decodeBatches(bytes), isNamed);
  assert.equal(decodeRecords(bytes, { from: 2n }).records[0]?.value?.length, 4);

  const segment = await Segment.open(bytes);
  const damage: unknown[] = [];
  const found: bigint[] = [];
  const onDamage = ({ firstOffset, nextOffset }: { firstOffset: bigint; nextOffset: bigint | undefined }) =>
    damage.push(firstOffset, nextOffset);
  for await (const { offset } of segment.records({ onDamage })) found.push(offset);
  assert.deepEqual([found, damage], [[0n, 2n], [1n, 2n]]);
  const records = segment.records();
  assert.equal((await records.next()).value?.offset, 0n);
  await assert.rejects(records.next(), isNamed);
  segment.close();
});

test('what a server took can be read by a consumer, but for a record beyond its bound, which it steps over', async () => {
  const topic = freshTopic();
  await client.createTopic(topic);
  await client.appendBatches({ topic, batches: bomb([...Array(30).fill(MIB / 2), 40 * MIB, 5]) });
  const consumer = client.consumer({ start: 'earliest' });
  consumer.assign([{ topic, partition: 0 }]);
  const before = await take(consumer, 30);
  assert.deepEqual(before.map(({ offset }) => offset), Array.from({ length: 30 }, (_, at) => BigInt(at)));
  const error = await fails(consumer.poll({ timeoutMs: 60_000 }), 'INVALID_ARGUMENT', 'BATCH_TOO_LARGE');
  assert.deepEqual([error.offset, error.nextOffset], [30n, 31n]);
  consumer.seek(topic, 0, error.nextOffset!);
  assert.equal((await take(consumer, 1))[0]?.value?.length, 5);
  await consumer.close();
});
