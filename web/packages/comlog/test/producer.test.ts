import assert from 'node:assert/strict';
import { test } from 'node:test';

import { murmur2, partitionForKey } from 'comlog';

import { connect, fails, freshTopic, numbers, startServer, text, values } from './support.js';

const server = await startServer();
const client = connect(server);

test('records arrive with everything they have', async () => {
  const topic = freshTopic();
  const producer = client.producer();
  const sent = await producer.send({
    topic,
    key: 'k',
    value: new Uint8Array([0, 255]),
    headers: [{ name: 'a', value: 'x' }, { name: 'a' }, { name: 'é', value: '' }],
    timestamp: 1_700_000_000_000n,
  });
  assert.deepEqual(sent, { topic, partition: 0, offset: 0n, appendTime: undefined, durable: true });
  await producer.send({ topic });
  await producer.close();
  const { records, nextOffset, highWatermark } = await client.read({ topic, offset: 0n });
  assert.equal(nextOffset, 2n);
  assert.equal(highWatermark, 2n);
  const [full, empty] = records;
  assert.equal(text(full!.key), 'k');
  assert.deepEqual([...full!.value!], [0, 255]);
  assert.equal(full!.timestamp, 1_700_000_000_000n);
  const headers = full!.headers.map(({ name, value }) => [name, text(value)]);
  assert.deepEqual(headers, [['a', 'x'], ['a', null], ['é', '']]);
  assert.equal(empty!.key, null);
  assert.equal(empty!.value, null);
  assert.deepEqual(empty!.headers, []);
});

test('order is that of the calls, over many batches', async () => {
  const topic = freshTopic();
  const producer = client.producer({ batchRecordsMax: 7 });
  const sent = await Promise.all(numbers(1_000).map((value) => producer.send({ topic, value })));
  assert.deepEqual(sent.map(({ offset }) => offset), numbers(1_000).map(BigInt));
  const { records } = await client.read({ topic, offset: 0n });
  assert.deepEqual(values(records), numbers(1_000));
  await producer.close();
});

test('keys land where Kafka puts them', async () => {
  const vectors: [string, number][] = [
    ['21', -973_932_308],
    ['foobar', -790_332_482],
    ['a-little-bit-long-string', -985_981_536],
    ['a-little-bit-longer-string', -1_486_304_829],
    ['lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8', -58_897_971],
    ['abc', 479_470_107],
  ];
  for (const [key, hash] of vectors) assert.equal(murmur2(new TextEncoder().encode(key)) | 0, hash, key);

  const topic = freshTopic();
  await client.createTopic(topic, { partitions: 5 });
  const producer = client.producer();
  const keys = numbers(100);
  const sent = await Promise.all(keys.map((key) => producer.send({ topic, key })));
  assert.deepEqual(sent.map(({ partition }) => partition), keys.map((key) => partitionForKey(key, 5)));
  assert.equal(new Set(sent.map(({ partition }) => partition)).size, 5);
  await producer.close();
});

test('records without a key share a batch, and batches go around', async () => {
  const topic = freshTopic();
  await client.createTopic(topic, { partitions: 8 });
  const producer = client.producer();
  const used = new Set<number>();
  for (let round = 0; round < 60; round += 1) {
    const sent = await Promise.all(numbers(5).map((value) => producer.send({ topic, value })));
    const together = new Set(sent.map(({ partition }) => partition));
    assert.equal(together.size, 1);
    used.add(sent[0]!.partition);
  }
  assert.ok(used.size > 1, 'sixty batches went to more than one of eight partitions');
  await producer.close();
});

test('the buffer is bounded, and ready says when there is room', async () => {
  const topic = freshTopic();
  const producer = client.producer({ bufferBytesMax: 64 << 10, recordBytesMax: 8 << 10, batchBytes: 16 << 10 });
  const value = new Uint8Array(4_000);
  let taken = 0;
  while (producer.trySend({ topic, value }) !== undefined) taken += 1;
  assert.ok(taken > 0 && taken <= 16, `${taken} records fit`);
  assert.ok(producer.buffered.bytes <= 64 << 10);
  let refused = 0;
  const sends = numbers(40).map(() => producer.send({ topic, value }).catch(() => (refused += 1)));
  assert.ok(producer.buffered.bytes <= 64 << 10);
  await producer.ready({ signal: AbortSignal.timeout(30_000) });
  await Promise.all(sends);
  assert.ok(refused > 0, 'the line has a bound, too');
  await producer.flush();
  assert.deepEqual(producer.buffered, { records: 0, bytes: 0 });
  const { highWatermark } = await client.read({ topic, offset: 0n });
  assert.equal(highWatermark, BigInt(taken + 40 - refused));
  await producer.close();
});

test('linger gathers, and flush does not wait for it', async () => {
  const topic = freshTopic();
  let appends = 0;
  const counting = connect(server, {
    fetch: (input, init) => {
      if (String(input).endsWith('/Append')) appends += 1;
      return fetch(input, init);
    },
  });
  const producer = counting.producer({ lingerMs: 600_000 });
  for (const value of numbers(50)) {
    void producer.send({ topic, value });
    await new Promise((resolve) => setImmediate(resolve));
  }
  await producer.flush({ signal: AbortSignal.timeout(30_000) });
  assert.equal(appends, 1);
  await producer.close();
});

test('a record that is refused fails alone, and flush tells of it', async () => {
  const topic = freshTopic();
  await client.createTopic(topic, { config: { maxBatchBytes: 2_000 } });
  const producer = client.producer({ batchRecordsMax: 1 });
  const outcomes = [10, 5_000, 10].map((length) => producer.send({ topic, value: new Uint8Array(length) }));
  const [first, second, third] = outcomes;
  assert.equal((await first!).offset, 0n);
  const error = await fails(second!, 'INVALID_ARGUMENT', 'BATCH_TOO_LARGE');
  assert.equal(error.topic, topic);
  assert.equal((await third!).offset, 1n);
  await fails(producer.flush(), 'INVALID_ARGUMENT', 'BATCH_TOO_LARGE');
  await producer.flush();
  await producer.close();
  await fails(producer.send({ topic }), 'CANCELLED');
});

test('a signal takes a record back from the line, and ends a wait', async () => {
  const topic = freshTopic();
  const producer = client.producer({ bufferBytesMax: 1_500, recordBytesMax: 1_100, lingerMs: 600_000 });
  const first = producer.send({ topic, value: new Uint8Array(1_000) });
  const controller = new AbortController();
  const second = producer.send({ topic, value: new Uint8Array(1_000) }, { signal: controller.signal });
  controller.abort(new Error('enough'));
  await assert.rejects(second, /enough/);
  await assert.rejects(producer.ready({ signal: AbortSignal.abort(new Error('no')) }).then(() => producer.send({ topic }, { signal: AbortSignal.abort(new Error('no')) })), /no/);
  await producer.flush();
  assert.equal((await first).offset, 0n);
  assert.equal((await client.read({ topic, offset: 0n })).highWatermark, 1n);
  await producer.close();
});

test('closing in a hurry leaves nobody waiting, in the line or in a flush', async () => {
  const producer = client.producer({ bufferBytesMax: 1_500, recordBytesMax: 1_100, lingerMs: 600_000 });
  const value = new Uint8Array(1_000);
  const topic = freshTopic();
  // One in the buffer, one in the line.
  const sends = [0, 0].map((partition) => producer.send({ topic, partition, value }));
  const flushed = producer.flush();
  producer.abandon();
  for (const send of sends) await fails(send, 'CANCELLED');
  await fails(flushed, 'CANCELLED');
});

test('compressed batches are read like others', async () => {
  const topic = freshTopic();
  for (const compression of ['gzip', 'snappy', 'lz4', 'zstd'] as const) {
    const producer = client.producer({ compression });
    await producer.send({ topic, value: compression.repeat(1_000) });
    await producer.close();
  }
  const { records } = await client.read({ topic, offset: 0n });
  assert.deepEqual(values(records), ['gzip', 'snappy', 'lz4', 'zstd'].map((name) => name.repeat(1_000)));
});

test('a loop that waits only when a record is not taken ends', async () => {
  const topic = freshTopic();
  // Sizes that never fill the buffer exactly.
  const producer = client.producer({ bufferBytesMax: 2_000, recordBytesMax: 1_000 });
  for (let n = 0; n < 200; n += 1) {
    const record = { topic, value: 'x'.repeat(100 + (n % 7)) };
    while (producer.trySend(record) === undefined) await producer.ready();
  }
  await producer.close();
  assert.equal((await client.read({ topic, offset: 0n })).highWatermark, 200n);
});

test('the batch limit of a topic is learned: batches are split, in order, each record once', async () => {
  const topic = freshTopic();
  const limit = 65_536;
  await client.createTopic(topic, { partitions: 2, config: { maxBatchBytes: limit } });
  const lines = numbers(3_000).map((n) => n.padStart(60, '.'));
  // With a key the topic is asked for first; with a partition it is not.
  for (const place of [{ key: 'k' }, { partition: 1 }]) {
    for (const idempotence of [true, false]) {
      const producer = client.producer({ lingerMs: 20, idempotence });
      const sent = await Promise.all(lines.map((value) => producer.send({ topic, value, ...place })));
      await producer.close();
      const first = sent[0]!.offset!;
      assert.deepEqual(sent.map(({ offset }) => offset), lines.map((_, at) => first + BigInt(at)));
      const partition = sent[0]!.partition;
      const stored: (string | null)[] = [];
      for (let offset = first; stored.length < lines.length; ) {
        const read = await client.read({ topic, partition, offset });
        stored.push(...values(read.records));
        offset = read.nextOffset;
      }
      assert.deepEqual(stored, lines);
    }
  }
});

test('a record over the limit of its topic is refused alone', async () => {
  const topic = freshTopic();
  await client.createTopic(topic, { config: { maxBatchBytes: 65_536 } });
  for (const place of [{}, { partition: 0 }]) {
    const producer = client.producer({ lingerMs: 20 });
    const small = numbers(20).map((value) => ({ topic, value, ...place }));
    const large = { topic, value: 'x'.repeat(100_000), ...place };
    const sent = [...small.slice(0, 10), large, ...small.slice(10)].map((record) => producer.send(record));
    await fails(sent[10]!, 'INVALID_ARGUMENT', 'BATCH_TOO_LARGE');
    const offsets = (await Promise.all(sent.filter((_, at) => at !== 10))).map(({ offset }) => offset!);
    assert.deepEqual(offsets, offsets.map((_, at) => offsets[0]! + BigInt(at)));
    await fails(producer.close(), 'INVALID_ARGUMENT', 'BATCH_TOO_LARGE');
  }
});

test('a limit that is lowered meanwhile is learned too', async () => {
  const topic = freshTopic();
  await client.createTopic(topic);
  const producer = client.producer({ lingerMs: 20 });
  await producer.send({ topic, value: 'x' });
  await client.alterTopic(topic, { config: { maxBatchBytes: 20_000 } });
  const sent = await Promise.all(numbers(500).map((n) => producer.send({ topic, value: n.padStart(200) })));
  assert.deepEqual(sent.map(({ offset }) => offset), numbers(500).map((n) => BigInt(n) + 1n));
  await producer.close();
});
