import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { ConsumerRecord } from 'comlog';

import { connect, fails, freshTopic, numbers, startServer, take, values } from './support.js';

const server = await startServer();
const client = connect(server);
const signal = AbortSignal.timeout(120_000);

/** A topic with the records `0` to `count - 1` in partition 0. */
async function filled(count: number): Promise<string> {
  const topic = freshTopic();
  await client.createTopic(topic);
  await append(topic, numbers(count));
  return topic;
}

async function append(topic: string, texts: readonly string[], partition = 0): Promise<void> {
  if (texts.length === 0) return;
  const records = texts.map((value, index) => ({ value, timestamp: 1_000 + index }));
  await client.append({ topic, partition, records });
}

test('reads from the beginning, then live, without a seam', async () => {
  const topic = await filled(2_000);
  const consumer = client.consumer({ start: 'earliest', prefetchBytes: 10_000 });
  consumer.assign([{ topic, partition: 0 }]);
  const records = await take(consumer, 1_500);
  const writing = (async () => {
    for (let from = 2_000; from < 3_000; from += 100) {
      await append(topic, numbers(from + 100).slice(from));
    }
  })();
  records.push(...(await take(consumer, 1_500)));
  await writing;
  assert.deepEqual(values(records), numbers(3_000));
  assert.deepEqual(records.map(({ offset }) => offset), numbers(3_000).map(BigInt));
  assert.deepEqual(await consumer.poll({ timeoutMs: 50 }), []);
  await consumer.close();
});

test('a poll that found nothing leaves nothing behind', async () => {
  const topic = await filled(0);
  const consumer = client.consumer({ start: 'earliest' });
  consumer.assign([{ topic, partition: 0 }]);
  assert.deepEqual(await consumer.poll({ timeoutMs: 100 }), []);
  const waiting = consumer.poll({ signal });
  await append(topic, ['late']);
  assert.deepEqual(values(await waiting), ['late']);
  await consumer.close();
});

test('starts where it is told to', async () => {
  const topic = await filled(10);
  const starts: [Parameters<typeof consumer.seek>[2], string][] = [
    ['earliest', '0'],
    [4n, '4'],
    [{ offset: 5n }, '5'],
    [{ timestamp: 1_006 }, '6'],
    [new Date(1_007), '7'],
  ];
  const consumer = client.consumer();
  for (const [at, value] of starts) {
    consumer.assign([{ topic, partition: 0, at }]);
    const [record] = await consumer.poll({ signal, maxRecords: 1 });
    assert.deepEqual(values([record!]), [value]);
    assert.equal(consumer.position(topic, 0), BigInt(value) + 1n);
  }
  consumer.seek(topic, 0, 'latest');
  while (consumer.position(topic, 0) === undefined) {
    signal.throwIfAborted();
    assert.deepEqual(await consumer.poll({ timeoutMs: 100 }), []);
  }
  assert.equal(consumer.position(topic, 0), 10n);
  await append(topic, ['new']);
  assert.deepEqual(values(await take(consumer, 1)), ['new']);
  await consumer.close();
});

test('seek forgets what was fetched', async () => {
  const topic = await filled(100);
  const consumer = client.consumer({ start: 'earliest' });
  consumer.assign([{ topic, partition: 0 }]);
  await consumer.poll({ signal, maxRecords: 10 });
  consumer.seek(topic, 0, 90n);
  assert.deepEqual(values(await take(consumer, 10)), numbers(100).slice(90));
  consumer.seek(topic, 0, 'earliest');
  assert.deepEqual(values(await take(consumer, 100)), numbers(100));
  await consumer.close();
});

test('two consumers of a client read the same partition at their own pace', async () => {
  const topic = await filled(50);
  const [early, late] = [client.consumer({ start: 'earliest' }), client.consumer({ start: 'latest' })];
  early.assign([{ topic, partition: 0 }]);
  late.assign([{ topic, partition: 0 }]);
  assert.deepEqual(await late.poll({ timeoutMs: 300 }), []);
  await append(topic, ['a', 'b']);
  assert.deepEqual(values(await take(late, 2)), ['a', 'b']);
  assert.deepEqual(values(await take(early, 52)), [...numbers(50), 'a', 'b']);
  await Promise.all([early.close(), late.close()]);
});

test('all partitions of a topic, and those that are added', async () => {
  const topic = freshTopic();
  await client.createTopic(topic, { partitions: 3 });
  const consumer = client.consumer({ start: 'earliest', metadataAgeMs: 100 });
  consumer.subscribe([topic]);
  for (const partition of [0, 1, 2]) await append(topic, [`in ${partition}`], partition);
  const records = await take(consumer, 3);
  assert.deepEqual(values(records).sort(), ['in 0', 'in 1', 'in 2']);
  await client.alterTopic(topic, { partitions: 4 });
  await append(topic, ['in 3'], 3);
  assert.deepEqual(values(await take(consumer, 1)), ['in 3']);
  assert.equal(consumer.assignment.length, 4);
  await consumer.close();
});

test('paused partitions rest, the others go on', async () => {
  const topic = freshTopic();
  await client.createTopic(topic, { partitions: 2 });
  const consumer = client.consumer({ start: 'earliest' });
  consumer.assign([{ topic }]);
  await append(topic, ['x'], 0);
  await append(topic, ['y'], 1);
  await take(consumer, 2);
  consumer.pause([{ topic, partition: 0 }]);
  await append(topic, ['hidden'], 0);
  await append(topic, ['seen'], 1);
  assert.deepEqual(values(await take(consumer, 1)), ['seen']);
  assert.deepEqual(await consumer.poll({ timeoutMs: 100 }), []);
  consumer.resume();
  assert.deepEqual(values(await take(consumer, 1)), ['hidden']);
  await consumer.close();
});

test('a group goes on where it has committed', async () => {
  const topic = await filled(10);
  const group = 'readers';
  const first = client.consumer({ group, start: 'earliest' });
  first.assign([{ topic, partition: 0 }]);
  await first.poll({ signal, maxRecords: 4 });
  await first.commit();
  await first.poll({ signal, maxRecords: 4 });
  await first.close();
  const second = client.consumer({ group, start: 'earliest' });
  second.assign([{ topic, partition: 0 }]);
  assert.deepEqual(values(await take(second, 6)), numbers(10).slice(4));
  const [committed] = await second.committed();
  assert.equal(committed?.offset, 4n);
  assert.ok((await client.listGroups()).includes(group));
  await second.close();
});

test('automatic commits cover what the loop is done with', async () => {
  const topic = await filled(10);
  const group = 'automatic';
  const first = client.consumer({ group, start: 'earliest', autoCommitMs: 20 });
  first.assign([{ topic, partition: 0 }]);
  let seen = 0;
  for await (const record of first) {
    seen += 1;
    if (record.offset < 5n) continue;
    for (;;) {
      // The record in hand is not done with: it must never be committed by itself.
      const [committed] = await client.committedOffsets(group);
      assert.ok((committed?.offset ?? 0n) <= 5n);
      if (committed?.offset === 5n) break;
    }
    break;
  }
  assert.equal(seen, 6);
  await first.close();
  const [committed] = await client.committedOffsets(group);
  assert.equal(committed?.offset, 6n, 'closing commits what was handed out');
});

test('for await ends with its signal and loses nothing', async () => {
  const topic = await filled(5);
  const consumer = client.consumer({ start: 'earliest' });
  consumer.assign([{ topic, partition: 0 }]);
  const seen: ConsumerRecord[] = [];
  for await (const record of consumer) {
    seen.push(record);
    if (seen.length === 2) break;
  }
  const controller = new AbortController();
  const rest = (async () => {
    for await (const record of consumer.records({ signal: controller.signal })) {
      seen.push(record);
      if (seen.length === 5) setTimeout(() => controller.abort(new Error('over')), 20);
    }
  })();
  await assert.rejects(rest, /over/);
  assert.deepEqual(values(seen), numbers(5));
  await consumer.close();
});

test('tail is a consumer of one loop', async () => {
  const topic = await filled(3);
  const seen: ConsumerRecord[] = [];
  for await (const record of client.tail({ topic, at: 'earliest' }, { signal })) {
    seen.push(record);
    if (seen.length === 3) await append(topic, ['live']);
    if (seen.length === 4) break;
  }
  assert.deepEqual(values(seen), [...numbers(3), 'live']);
});

test('a slow consumer falls behind and loses nothing', async () => {
  const topic = await filled(0);
  const slow = client.consumer({ start: 'earliest', prefetchBytes: 1 });
  slow.assign([{ topic, partition: 0 }]);
  await append(topic, ['first']);
  await take(slow, 1);
  // Far more than may wait for one reader.
  const value = 'x'.repeat(100_000);
  const producer = client.producer();
  const count = 150;
  await Promise.all(numbers(count).map((key) => producer.send({ topic, key, value })));
  await producer.close();
  const records = await take(slow, count);
  assert.deepEqual(records.map(({ offset }) => offset), numbers(count).map((n) => BigInt(n) + 1n));
  await slow.close();
});

test('what cannot be read is told once, and a seek goes on', async () => {
  const topic = await filled(10);
  const consumer = client.consumer({ start: 'earliest' });
  consumer.assign([{ topic, partition: 0, at: 99n }]);
  const error = await fails(consumer.poll({ signal }), 'OUT_OF_RANGE', 'OFFSET_OUT_OF_RANGE');
  assert.equal(error.topic, topic);
  assert.equal(error.partition, 0);
  assert.equal(error.offset, 10n);
  assert.deepEqual(await consumer.poll({ timeoutMs: 50 }), []);
  consumer.seek(topic, 0, 'earliest');
  assert.deepEqual(values(await take(consumer, 10)), numbers(10));

  await client.trim(topic, 0, 5n);
  consumer.seek(topic, 0, 2n);
  await fails(consumer.poll({ signal }), 'OUT_OF_RANGE', 'OFFSET_OUT_OF_RANGE');
  await consumer.close();

  const patient = client.consumer({ outOfRange: 'earliest' });
  patient.assign([{ topic, partition: 0, at: 2n }]);
  assert.deepEqual(values(await take(patient, 5)), numbers(10).slice(5));
  patient.assign([{ topic: 'nowhere', partition: 0 }, { topic: 'nowhere-else' }]);
  const missing = [await fails(patient.poll({ signal }), 'NOT_FOUND', 'TOPIC_NOT_FOUND')];
  missing.push(await fails(patient.poll({ signal }), 'NOT_FOUND', 'TOPIC_NOT_FOUND'));
  assert.deepEqual(missing.map(({ topic }) => topic).sort(), ['nowhere', 'nowhere-else']);
  await append(topic, ['still here']);
  assert.deepEqual(values(await take(patient, 1)), ['still here']);
  await patient.close();
});

test('a topic deleted under an open tail is an error of that topic alone', async () => {
  const [gone, kept] = [await filled(1), await filled(1)];
  const consumer = client.consumer({ start: 'earliest' });
  consumer.assign([gone, kept].map((topic) => ({ topic, partition: 0 })));
  await take(consumer, 2);
  await consumer.poll({ timeoutMs: 200 });
  await client.deleteTopic(gone);
  const error = await fails(consumer.poll({ signal }), 'NOT_FOUND', 'TOPIC_NOT_FOUND');
  assert.equal(error.topic, gone);
  await append(kept, ['more']);
  assert.deepEqual(values(await take(consumer, 1)), ['more']);
  await consumer.close();
});
