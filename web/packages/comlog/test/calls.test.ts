import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Client, ComlogError } from 'comlog';

import { connect, fails, freshTopic, numbers, startServer, values } from './support.js';

const server = await startServer();
const client = connect(server);

test('topics are made, listed, described, changed and deleted', async () => {
  const topic = freshTopic();
  const config = { retentionMs: 86_400_000, durability: 'durable', timestampType: 'append', validation: 'full' } as const;
  const created = await client.createTopic(topic, { partitions: 2, config });
  assert.match(created.id, /^[0-9a-f]{32}$/);
  assert.deepEqual(created.config, { ...config, retentionMs: 86_400_000n });
  assert.ok(Math.abs(created.createdAt.getTime() - Date.now()) < 600_000);
  assert.ok((await client.listTopics()).some(({ name }) => name === topic));
  const names = (await client.listTopics({ includeInternal: true })).map(({ name }) => name);
  assert.ok(names.some((name) => name.startsWith('__')));

  const { warnings } = await client.alterTopic(topic, {
    config: { maxBatchBytes: 65_536 },
    reset: ['retentionMs'],
    partitions: 3,
  });
  assert.ok(Array.isArray(warnings));
  const described = await client.describeTopic(topic);
  assert.equal(described.topic.config.maxBatchBytes, 65_536);
  assert.equal(described.topic.config.retentionMs, undefined);
  assert.equal(described.effective.retentionMs, -1n);
  assert.deepEqual(described.partitions.map(({ partition }) => partition), [0, 1, 2]);
  assert.equal(described.partitions[0]!.failure, undefined);

  assert.equal((await client.createTopic(topic, { ifNotExists: true })).id, created.id);
  await client.deleteTopic(topic);
  await fails(client.describeTopic(topic), 'NOT_FOUND', 'TOPIC_NOT_FOUND');
});

test('offsets are found, the head is trimmed, the tail is synced', async () => {
  const topic = freshTopic();
  const records = numbers(10).map((value) => ({ value, timestamp: Number(value) * 10 }));
  const appended = await client.append({ topic, records });
  assert.deepEqual(appended, {
    baseOffset: 0n,
    nextOffset: 10n,
    appendTime: undefined,
    duplicate: false,
    durable: true,
  });
  const ats = ['earliest', 'latest', { timestamp: 45 }, new Date(1_000)] as const;
  const found = await client.listOffsets(ats.map((at) => ({ topic, at })));
  assert.deepEqual(found.map(({ offset }) => offset), [0n, 10n, 5n, 10n]);
  assert.deepEqual(found.map(({ timestamp }) => timestamp), [undefined, undefined, 50n, undefined]);
  assert.equal(await client.sync(topic, 0), 10n);
  assert.equal(await client.trim(topic, 0, 4n), 4n);
  const read = await client.read({ topic, offset: 4n });
  assert.equal(read.logStartOffset, 4n);
  assert.deepEqual(values(read.records), numbers(10).slice(4));
});

test('a read waits for a record, and no longer than it may', async () => {
  const topic = freshTopic();
  await client.createTopic(topic);
  const empty = await client.read({ topic, offset: 0n, maxWaitMs: 50 });
  assert.deepEqual(empty.records, []);
  const waiting = client.read({ topic, offset: 0n, maxWaitMs: 60_000 }, { timeoutMs: 120_000 });
  await client.append({ topic, records: [{ value: 'x' }] });
  assert.deepEqual(values((await waiting).records), ['x']);
});

test('error codes arrive as themselves, with what they are about', async () => {
  const topic = freshTopic();
  await client.createTopic(topic);
  await client.append({ topic, records: [{ value: 'x' }] });

  const missing = await fails(client.describeTopic('nowhere'), 'NOT_FOUND', 'TOPIC_NOT_FOUND');
  assert.equal(missing.topic, 'nowhere');
  assert.equal(missing.retryable, false);

  const beyond = await fails(client.read({ topic, offset: 7n }), 'OUT_OF_RANGE', 'OFFSET_OUT_OF_RANGE');
  assert.deepEqual([beyond.topic, beyond.partition, beyond.offset], [topic, 0, 1n]);

  const records = [{ value: 'y' }];
  const unexpected = await fails(
    client.append({ topic, records, expectedOffset: 0n }),
    'FAILED_PRECONDITION',
    'UNEXPECTED_OFFSET',
  );
  assert.equal(unexpected.offset, 1n);
  assert.equal((await client.append({ topic, records, expectedOffset: 1n })).baseOffset, 1n);

  await fails(client.createTopic(topic), 'ALREADY_EXISTS', 'TOPIC_EXISTS');
  await fails(client.createTopic('no/slash'), 'INVALID_ARGUMENT', 'INVALID_TOPIC_NAME');
  await fails(client.read({ topic, partition: 9, offset: 0n }), 'NOT_FOUND', 'PARTITION_NOT_FOUND');
  await fails(client.append({ topic, records: [] }), 'INVALID_ARGUMENT', 'INVALID_REQUEST');
  await fails(client.deleteGroup('nobody'), 'NOT_FOUND', 'GROUP_NOT_FOUND');
  assert.deepEqual(await client.committedOffsets('nobody'), []);

  assert.deepEqual(JSON.parse(JSON.stringify(beyond)), {
    name: 'ComlogError',
    code: 'OUT_OF_RANGE',
    reason: 'OFFSET_OUT_OF_RANGE',
    message: beyond.message,
    topic,
    partition: 0,
    offset: '1',
  });
});

test('what is no comlog server is unavailable, not something else', async () => {
  const answers = [
    new Response('<html>hello</html>', { headers: { 'content-type': 'text/html' } }),
    new Response('', { status: 502 }),
    new Response(new Uint8Array([0, 0, 0]), { headers: { 'content-type': 'application/grpc-web+proto' } }),
  ];
  for (const answer of answers) {
    const strange = connect(server, { retry: { attemptsMax: 1 }, fetch: async () => answer });
    await fails(strange.listTopics(), 'UNAVAILABLE');
  }
  const forbidden = connect(server, { fetch: async () => new Response('', { status: 403 }) });
  await fails(forbidden.listTopics(), 'PERMISSION_DENIED');
});

test('signals end calls with their reason, timeouts with DEADLINE_EXCEEDED', async () => {
  const topic = freshTopic();
  await client.createTopic(topic);
  await assert.rejects(client.listTopics({ signal: AbortSignal.abort(new Error('no')) }), /^Error: no$/);
  const controller = new AbortController();
  const waiting = client.read({ topic, offset: 0n, maxWaitMs: 60_000 }, { signal: controller.signal });
  setTimeout(() => controller.abort(new Error('enough')), 50);
  await assert.rejects(waiting, /^Error: enough$/);
  const hasty = connect(server, { retry: { attemptsMax: 1 } });
  await fails(hasty.read({ topic, offset: 0n, maxWaitMs: 60_000 }, { timeoutMs: 50 }), 'DEADLINE_EXCEEDED');
});

test('headers and fetch can be hooked', async () => {
  const seen: (string | null)[] = [];
  let tokens = 0;
  const hooked = connect(server, {
    headers: async () => ({ authorization: `Bearer ${(tokens += 1)}` }),
    fetch: (input, init) => {
      seen.push(new Headers(init?.headers).get('authorization'));
      return fetch(input, init);
    },
  });
  await hooked.listTopics();
  await hooked.listTopics();
  assert.deepEqual(seen, ['Bearer 1', 'Bearer 2']);
});

test('a closed client says so', async () => {
  const topic = freshTopic();
  const mine = new Client({ url: server.url });
  const producer = mine.producer({ lingerMs: 600_000 });
  const pending = producer.send({ topic, partition: 0, value: 'x' });
  const consumer = mine.consumer();
  await mine.close();
  await fails(pending, 'CANCELLED');
  await fails(mine.listTopics(), 'CANCELLED');
  await fails(consumer.poll(), 'CANCELLED');
  assert.throws(() => mine.producer(), ComlogError);
});

test('options are checked, and a server needs no location', () => {
  const wrong = (options: ConstructorParameters<typeof Client>[0]) => {
    assert.throws(() => new Client(options), { name: 'ComlogError', code: 'INVALID_ARGUMENT' });
  };
  wrong(undefined);
  wrong({ url: 'ftp://example.org' });
  wrong({ url: 'http://exa mple' });
  wrong({ url: server.url, timeoutMs: 0 });
  assert.equal(new Client({ url: 'https://example.org/behind/' }).url, 'https://example.org/behind');
  assert.throws(() => client.producer({ compression: 'rar' as 'gzip' }), ComlogError);
  assert.throws(() => client.consumer({ autoCommitMs: 10 }), ComlogError);
});
