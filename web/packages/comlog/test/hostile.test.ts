import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { Client, ComlogError, partitionForKey, type ClientOptions, type Consumer } from 'comlog';
import { MemoryLog, decodeBatches, decodeRecords, encodeBatch, init } from 'comlog/node';

import { HostileServer, type Answer, type Fields } from './hostile-server.js';
import { fails } from './support.js';

const MAX = 2n ** 63n - 1n;
/** Nobody waits so long for anything here. */
const LONG_MS = 60_000;

const unhandled: unknown[] = [];
process.on('unhandledRejection', (reason) => unhandled.push(reason));
after(() => assert.deepEqual(unhandled, []));

async function hostile(
  answers: Record<string, (call: number) => Answer>,
  options: ClientOptions = {},
): Promise<{ server: HostileServer; client: Client }> {
  const server = await HostileServer.start(answers);
  const client = new Client({ url: server.url, retry: { backoffMinMs: 1, backoffMaxMs: 5 }, ...options });
  after(async () => {
    await client.close();
    server.stop();
  });
  return { server, client };
}

const topic = (partitions: number | bigint): Fields => [[1, [[1, 't'], [3, partitions]]]];
const appended = (base: bigint, next: bigint): Fields => [[1, [[1, base], [2, next]]]];
const ids = (): Fields => [[1, 7]];
const record = (offset: bigint): [number, Fields] => [2, [[2, 'x'], [5, offset]]];
const fetched = (records: [number, Fields][], next: bigint, end: bigint): Fields => [[1, [...records, [3, next], [5, end]]]];

/** What `work` comes to, whether it throws or rejects. */
async function outcome(work: () => unknown): Promise<unknown> {
  try {
    return await work();
  } catch (error) {
    return error;
  }
}

async function refuses(name: string, work: () => unknown): Promise<void> {
  const error = await outcome(work);
  assert.ok(error instanceof ComlogError, `${name}: ${String(error)}`);
  assert.equal(error.code, 'INVALID_ARGUMENT', `${name}: ${error.message}`);
  assert.ok(error.message.includes(name), `"${error.message}" names ${name}`);
}

test('wrong input is refused at once, by the name of its field, and nothing is sent', async () => {
  const { server, client } = await hostile({});
  // What has no types may hand in anything.
  const any = (value: unknown) => value as never;
  const producer = client.producer();
  const t = 't';
  const sends: [string, unknown][] = [
    ['topic', {}],
    ['record', undefined],
    ['record', 5],
    ['value', { topic: t, value: 5 }],
    ['value', { topic: t, value: {} }],
    ['value', { topic: t, value: [1, 2] }],
    ['value', { topic: t, value: new ArrayBuffer(4) }],
    ['key', { topic: t, key: 5n }],
    ['headers', { topic: t, headers: {} }],
    ['header', { topic: t, headers: [null] }],
    ['header.name', { topic: t, headers: [{ value: 'x' }] }],
    ['header.value', { topic: t, headers: [{ name: 'x', value: 5 }] }],
    ['timestamp', { topic: t, timestamp: NaN }],
    ['timestamp', { topic: t, timestamp: '2020' }],
    ['timestamp', { topic: t, timestamp: new Date(NaN) }],
    ['timestamp', { topic: t, timestamp: MAX + 1n }],
    ['partition', { topic: t, partition: 1.5 }],
    ['partition', { topic: t, partition: -1 }],
    ['partition', { topic: t, partition: '0' }],
  ];
  for (const [name, input] of sends) {
    await refuses(name, () => producer.send(any(input)));
    await refuses(name, () => producer.trySend(any(input)));
    if (name !== 'record' && name !== 'topic' && name !== 'partition') {
      await refuses(name, () => client.append({ topic: t, records: [any(input)] }));
    }
  }
  assert.deepEqual(producer.buffered, { records: 0, bytes: 0 });
  await producer.flush();
  await producer.close();

  const group = client.consumer({ group: 'g' });
  const calls: [string, () => unknown][] = [
    ['records', () => client.append({ topic: t, records: any({}) })],
    ['topic', () => client.append({ topic: any(5), records: [] })],
    ['expectedOffset', () => client.append({ topic: t, records: [], expectedOffset: any(5) })],
    ['compression', () => client.append({ topic: t, records: [], compression: any('rar') })],
    ['offset', () => client.read({ topic: t, offset: any(5) })],
    ['offset', () => client.read({ topic: t, offset: -1n })],
    ['maxBytes', () => client.read({ topic: t, offset: 0n, maxBytes: any('1') })],
    ['maxWaitMs', () => client.readBatches({ topic: t, offset: 0n, maxWaitMs: -1 })],
    ['timeoutMs', () => client.read({ topic: t, offset: 0n }, { timeoutMs: any('5') })],
    ['batches', () => client.appendBatches({ topic: t, batches: any('abc') })],
    ['queries', () => client.listOffsets(any({}))],
    ['at', () => client.listOffsets([{ topic: t, at: any(5) }])],
    ['at', () => client.listOffsets([{ topic: t, at: any(null) }])],
    ['at.offset', () => client.listOffsets([{ topic: t, at: { offset: any(5) } }])],
    ['timestamp', () => client.listOffsets([{ topic: t, at: { timestamp: Infinity } }])],
    ['offset', () => client.trim(t, 0, any(1))],
    ['partition', () => client.sync(t, any('0'))],
    ['token', () => client.fence(t, 0, any(1))],
    ['name', () => client.createTopic(any(undefined))],
    ['partitions', () => client.createTopic(t, { partitions: 1.5 })],
    ['config.retentionMs', () => client.createTopic(t, { config: { retentionMs: 1.5 } })],
    ['config.maxBatchBytes', () => client.createTopic(t, { config: { maxBatchBytes: any('1') } })],
    ['config.archive', () => client.createTopic(t, { config: { archive: any(1) } })],
    ['name', () => client.describeTopic(any(5))],
    ['reset', () => client.alterTopic(t, { reset: any('x') })],
    ['partitions', () => client.alterTopic(t, { partitions: -1 })],
    ['name', () => client.deleteTopic(any(null))],
    ['group', () => client.committedOffsets(any(5))],
    ['partition', () => client.committedOffsets('g', [{ topic: t, partition: any('1') }])],
    ['offset', () => client.commitOffsets('g', [{ topic: t, partition: 0, offset: any(1) }])],
    ['metadata', () => client.commitOffsets('g', [{ topic: t, partition: 0, offset: 1n, metadata: any(1) }])],
    ['group', () => client.deleteGroup(any({}))],
    ['lingerMs', () => client.producer({ lingerMs: any('1') })],
    ['deliveryTimeoutMs', () => client.producer({ deliveryTimeoutMs: NaN })],
    ['batchBytes', () => client.producer({ batchBytes: any('5') })],
    ['start', () => client.consumer({ start: any(5) }).close()],
    ['outOfRange', () => client.consumer({ outOfRange: any('latests') })],
    ['prefetchBytes', () => client.consumer({ prefetchBytes: 0 })],
    ['assignments', () => group.assign(any({ topic: t }))],
    ['topic', () => group.assign([any({})])],
    ['at', () => group.assign([{ topic: t, partition: 0, at: any(5) }])],
    ['topics', () => group.subscribe(any('t'))],
    ['timeoutMs', () => group.poll({ timeoutMs: any('5') })],
    ['maxRecords', () => group.poll({ maxRecords: 0 })],
    ['offset', () => group.commit([{ topic: t, partition: 0, offset: any(5) }])],
    ['retry.attemptsMax', () => new Client({ url: server.url, retry: { attemptsMax: any('3') } })],
    ['timeoutMs', () => new Client({ url: server.url, timeoutMs: any('3') })],
    ['partitions', () => partitionForKey('k', 0)],
    ['key', () => partitionForKey(any(5), 3)],
  ];
  for (const [name, call] of calls) await refuses(name, call);
  // What is only known when it is written names its field too.
  await refuses('fencing_token', () => client.append({ topic: t, records: [{ value: 'x' }], fencingToken: 2n ** 64n }));
  await group.close();
  assert.equal(server.calls.size, 0);

  await init();
  const log = await MemoryLog.open();
  const records: [string, unknown][] = [['records', 5], ['records', null], ['record', [5]], ['value', [{ value: 5 }]], ['header.name', [{ headers: [{}] }]], ['timestamp', [{ timestamp: NaN }]]];
  for (const [name, input] of records) {
    await refuses(name, () => encodeBatch(any(input)));
    await refuses(name, () => log.append(any(input)));
  }
  await refuses('encoded', () => log.appendBatches(any('abc')));
  await refuses('bytes', () => decodeBatches(any('abc')));
  await refuses('bytes', () => decodeRecords(any([1])));
  await refuses('from', () => decodeRecords(new Uint8Array(), { from: any(5) }));
  log.close();
});

test('every timeout is honoured by a server that is silent', async () => {
  const { server, client } = await hostile({}, { timeoutMs: 4 * LONG_MS });
  const deliveryTimeoutMs = 400;
  const inTime = async (work: Promise<unknown>) => {
    const start = performance.now();
    await fails(work, 'DEADLINE_EXCEEDED');
    // Only as good as to tell it from the timeout of one call.
    assert.ok(performance.now() - start < LONG_MS);
  };
  const options = { timeoutMs: 100 };
  await inTime(client.listTopics(options));
  await inTime(client.read({ topic: 't', offset: 0n }, options));
  assert.equal(server.calls.get('ListTopics'), 1, 'the time of one attempt is that of all');
  await inTime(client.append({ topic: 't', records: [{ value: 'x' }] }, options));
  for (const options of [{}, { partition: 0 }]) {
    const producer = client.producer({ deliveryTimeoutMs, inFlightMax: 1 });
    const sent = ['a', 'b', 'c'].map((value) => producer.send({ topic: 't', value, ...options }));
    if ('partition' in options) sent.push(producer.send({ topic: 't', value: 'behind the gate', partition: 1 }));
    await Promise.all(sent.map(inTime));
    await fails(producer.flush(), 'DEADLINE_EXCEEDED');
    await producer.close();
  }
  const consumer = client.consumer({ group: 'g' });
  consumer.assign([{ topic: 't' }, { topic: 't', partition: 0 }]);
  assert.deepEqual(await consumer.poll({ timeoutMs: 50 }), []);
  await inTime(consumer.commit([{ topic: 't', partition: 0, offset: 1n }], options));
  await consumer.close();
});

test('a hook that never returns ends no later than the timeout', async () => {
  const never = new Promise<never>(() => {});
  for (const options of [{ fetch: () => never }, { headers: () => never }]) {
    const client = new Client({ url: 'http://127.0.0.1:1', timeoutMs: 50, ...options });
    await fails(client.listTopics(), 'DEADLINE_EXCEEDED');
    await client.close();
  }
});

test('a timeout of any length is one', async () => {
  const { client } = await hostile({ ListTopics: () => [] }, { timeoutMs: Infinity });
  assert.deepEqual(await client.listTopics(), []);
  assert.deepEqual(await client.listTopics({ timeoutMs: 1e12 }), []);
});

test('where records were put is not believed when it cannot be', async () => {
  const places = [appended(-5n, -4n), appended(3n, 3n), appended(5n, 4n), appended(0n, 9n), appended(-1n, MAX), []];
  for (const place of places) {
    const { client } = await hostile({ Append: () => place, InitProducerId: ids, DescribeTopic: () => topic(1) });
    await fails(client.append({ topic: 't', records: [{ value: 'x' }] }), 'INTERNAL');
    const producer = client.producer({ deliveryTimeoutMs: LONG_MS });
    await fails(producer.send({ topic: 't', value: 'x' }), 'INTERNAL');
    await fails(producer.flush(), 'INTERNAL');
    await producer.close();
  }
});

test('counts and numbers that cannot be are errors', async () => {
  for (const partitions of [0, 2 ** 32 - 1]) {
    const { client } = await hostile({ DescribeTopic: () => topic(partitions), InitProducerId: () => [[1, -1n]] });
    await fails(client.describeTopic('t'), 'INTERNAL');
    const producer = client.producer({ deliveryTimeoutMs: LONG_MS });
    await fails(producer.send({ topic: 't', value: 'x' }), 'INTERNAL');
    await fails(producer.send({ topic: 't', value: 'x', partition: 0 }), 'INTERNAL');
    const consumer = client.consumer();
    consumer.assign([{ topic: 't' }]);
    await fails(consumer.poll({ timeoutMs: LONG_MS }), 'INTERNAL');
    await consumer.close();
  }
  const { client } = await hostile({
    ListOffsets: () => [[1, [[1, 'other'], [3, 5n]]]],
    Trim: () => [[1, -1n]],
    Sync: () => [[1, -1n]],
    Fence: () => [[1, -1n]],
    FetchOffsets: () => [[1, [[1, 't'], [3, -9n]]]],
    ListTopics: () => [[1, []]],
    CreateTopic: () => [],
    AlterTopic: () => [],
  });
  await fails(client.listOffsets([{ topic: 't' }]), 'INTERNAL');
  await fails(client.listOffsets([]), 'INTERNAL');
  await fails(client.trim('t', 0, 1n), 'INTERNAL');
  await fails(client.sync('t', 0), 'INTERNAL');
  await fails(client.fence('t', 0, 1n), 'INTERNAL');
  await fails(client.committedOffsets('g'), 'INTERNAL');
  await fails(client.listTopics(), 'INTERNAL');
  await fails(client.createTopic('t'), 'INTERNAL');
  await fails(client.alterTopic('t', {}), 'INTERNAL');
});

/** A consumer of one partition whose server answers so; it must come to an error. */
async function consumed(answers: Record<string, (call: number) => Answer>, at: bigint | 'earliest' = 5n): Promise<void> {
  const { client } = await hostile(answers);
  const consumer: Consumer = client.consumer();
  consumer.assign([{ topic: 't', partition: 0, at }]);
  const all = async () => {
    for (;;) assert.ok((await consumer.poll({ timeoutMs: LONG_MS })).length > 0, 'a wait for ever');
  };
  await fails(all(), 'INTERNAL');
  await consumer.close();
}

test('what is read is in order, from where it was asked for, and gets on', async () => {
  const answers: Fields[] = [
    fetched([record(6n), record(5n)], 7n, 7n),
    fetched([record(5n), record(5n)], 7n, 7n),
    fetched([record(5n), record(9n)], 7n, 9n),
    fetched([record(1n)], 2n, 9n),
    fetched([], 2n, 9n),
    fetched([], 5n, MAX),
    fetched([], -1n, -1n),
    fetched([record(-3n)], 6n, 6n),
    [],
  ];
  for (const answer of answers) {
    const { client } = await hostile({ Read: () => answer });
    // What makes no progress is an answer to one read, but not to one after the other.
    const isIdle = answer === answers[5];
    if (!isIdle) await fails(client.read({ topic: 't', offset: 5n }), 'INTERNAL');
    await consumed({ Read: () => answer });
  }
  await consumed({ ListOffsets: () => [[1, [[1, 't'], [2, 3], [3, 5n]]]] }, 'earliest');
  await consumed({ ListOffsets: () => [[1, [[1, 't'], [3, -5n]]]] }, 'earliest');
  await consumed({ ListOffsets: () => [] }, 'earliest');
});

test('gaps are no nonsense: what was compacted left them', async () => {
  const { client } = await hostile({ Read: () => fetched([record(7n), record(12n)], 20n, 20n) });
  const read = await client.read({ topic: 't', offset: 5n });
  assert.deepEqual(read.records.map(({ offset }) => offset), [7n, 12n]);
  assert.equal(read.nextOffset, 20n);
});

test('a stream of nonsense ends in an error of the partition', async () => {
  const Read = () => fetched([], 5n, 5n);
  const opened: Fields = [[1, [[1, 'id']]]];
  const position = (offset: bigint): Fields => [[1, [[1, 't'], [3, offset], [4, 9]]]];
  const piece = (records: [number, Fields][], next: bigint): Fields => [[2, [[1, 't'], [3, 9], [4, [...records, [3, next]]]]]];
  // No position, one of another partition, one below 0, one that no read comes to.
  for (const positions of [[], [[1, [[1, 't'], [2, 8], [3, 5n]]]] as Fields, position(-1n), position(MAX)]) {
    await consumed({ Read, Tail: () => [opened], UpdateTail: () => positions });
  }
  for (const one of [piece([record(9n), record(8n)], 10n), piece([record(9n)], 9n), piece([record(-9n)], 10n)]) {
    await consumed({ Read, Tail: () => [opened, one], UpdateTail: () => position(5n) });
  }
});

test('what is no message is an error in the end, of every call', async () => {
  const garbage = Uint8Array.from([0xff, 0xff, 0xff, 1]);
  const { client } = await hostile({ ListTopics: () => garbage, Append: () => garbage, InitProducerId: () => garbage });
  assert.ok((await outcome(() => client.listTopics())) instanceof ComlogError);
  const producer = client.producer({ deliveryTimeoutMs: 300 });
  assert.ok((await outcome(() => producer.send({ topic: 't', value: 'x', partition: 0 }))) instanceof ComlogError);
  await producer.close().catch(() => {});
});
