import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { Connection, ConsumerRecord } from 'comlog';

import { Server } from './server.js';
import { connect, fails, freshTopic, numbers, text, values } from './support.js';

const retry = { backoffMinMs: 10, backoffMaxMs: 100 };

/** Runs `work` against a server of its own. */
async function withServer(work: (server: Server) => Promise<void>): Promise<void> {
  const server = await Server.start();
  try {
    await work(server);
  } finally {
    await server.stop();
  }
}

/** Every record of a topic, partition by partition. */
async function everything(server: Server, topic: string, partitions: number): Promise<ConsumerRecord[][]> {
  const client = connect(server);
  const all: ConsumerRecord[][] = [];
  for (let partition = 0; partition < partitions; partition += 1) {
    const records: ConsumerRecord[] = [];
    for (let offset = 0n; ; ) {
      const read = await client.read({ topic, partition, offset });
      records.push(...read.records);
      offset = read.nextOffset;
      if (offset >= read.highWatermark) break;
    }
    all.push(records);
  }
  return all;
}

test('SIGKILL during produce: nothing is lost, doubled or out of order', async () => {
  await withServer(async (server) => {
    const topic = freshTopic();
    const partitions = 3;
    const client = connect(server, { retry });
    await client.createTopic(topic, { partitions });
    const producer = client.producer({ batchRecordsMax: 20 });
    const count = 6_000;
    const killer = (async () => {
      for (let round = 0; round < 5; round += 1) {
        await new Promise((resolve) => setTimeout(resolve, 60 + 40 * round));
        await server.kill();
        await server.restart();
      }
    })();
    const sends: Promise<unknown>[] = [];
    for (const value of numbers(count)) {
      sends.push(producer.send({ topic, partition: Number(value) % partitions, value }));
      if (sends.length % 100 === 0) await new Promise((resolve) => setTimeout(resolve, 10));
    }
    await killer;
    await Promise.all(sends);
    await producer.close();
    const stored = await everything(server, topic, partitions);
    const sent = stored.map((_, partition) => numbers(count).filter((n) => Number(n) % partitions === partition));
    assert.deepEqual(stored.map(values), sent);
  });
});

test('the answer to an append is lost: the retry is recognised', async () => {
  await withServer(async (server) => {
    const topic = freshTopic();
    let lost = 0;
    const client = connect(server, {
      retry,
      fetch: async (input, init) => {
        const response = await fetch(input, init);
        if (String(input).endsWith('/Append') && lost < 3) {
          lost += 1;
          await response.arrayBuffer();
          throw new TypeError('the line went dead');
        }
        return response;
      },
    });
    const producer = client.producer({ batchRecordsMax: 2 });
    const sent = await Promise.all(numbers(6).map((value) => producer.send({ topic, value })));
    assert.equal(lost, 3);
    assert.deepEqual(sent.map(({ offset }) => offset), numbers(6).map(BigInt));
    assert.deepEqual((await everything(server, topic, 1)).map(values), [numbers(6)]);
    await producer.close();
  });
});

test('a batch that gave up never comes late, and does not disturb the next', async () => {
  await withServer(async (server) => {
    const topic = freshTopic();
    await connect(server).createTopic(topic);
    const held: (() => Promise<Response>)[] = [];
    const client = connect(server, {
      retry,
      fetch: (input, init) => {
        const isFirst = String(input).endsWith('/Append') && held.length < 1;
        if (!isFirst) return fetch(input, init);
        // On its way for ever, as it seems; it will arrive later.
        const { signal: _, ...rest } = init ?? {};
        held.push(() => fetch(input, rest));
        return new Promise((_, reject) => {
          init?.signal?.addEventListener('abort', () => reject(new TypeError('gave up')));
        });
      },
    });
    const producer = client.producer({ deliveryTimeoutMs: 3_000 });
    await fails(producer.send({ topic, value: 'late' }), 'DEADLINE_EXCEEDED');
    assert.equal((await producer.send({ topic, value: 'next' })).offset, 0n);
    await (await held[0]!()).arrayBuffer();
    assert.deepEqual((await everything(server, topic, 1)).map(values), [['next']]);
    await fails(producer.flush(), 'DEADLINE_EXCEEDED');
    await producer.close();
  });
});

test('the server is restarted under an open tail: nothing is lost or doubled', async () => {
  await withServer(async (server) => {
    const topic = freshTopic();
    const partitions = 2;
    const states: Connection['state'][] = [];
    const writer = connect(server, { retry });
    const reader = connect(server, { retry, onConnection: ({ state }) => states.push(state) });
    await writer.createTopic(topic, { partitions });
    const consumer = reader.consumer({ start: 'earliest' });
    consumer.assign([{ topic }]);
    const producer = writer.producer({ batchRecordsMax: 10 });
    const count = 2_000;
    const writing = (async () => {
      const sends: Promise<unknown>[] = [];
      for (const value of numbers(count)) {
        sends.push(producer.send({ topic, partition: Number(value) % partitions, value }));
        if (sends.length % 50 === 0) await new Promise((resolve) => setTimeout(resolve, 10));
        if (sends.length % 500 === 0) {
          await server.kill();
          await server.restart();
        }
      }
      await Promise.all(sends);
    })();
    const seen: ConsumerRecord[] = [];
    const signal = AbortSignal.timeout(120_000);
    while (seen.length < count) seen.push(...(await consumer.poll({ signal })));
    await writing;
    assert.deepEqual(await consumer.poll({ timeoutMs: 200 }), []);
    for (let partition = 0; partition < partitions; partition += 1) {
      const mine = seen.filter((record) => record.partition === partition);
      assert.deepEqual(values(mine), numbers(count).filter((n) => Number(n) % partitions === partition));
      assert.deepEqual(mine.map(({ offset }) => offset), numbers(mine.length).map(BigInt));
    }
    assert.ok(states.filter((state) => state === 'open').length > 1, `it was opened again: ${states.join()}`);
    assert.ok(states.includes('waiting'));
    await Promise.all([consumer.close(), producer.close()]);
  });
});

test('a stream that breaks at any byte goes on where it was', async () => {
  await withServer(async (server) => {
    const topic = freshTopic();
    const writer = connect(server);
    await writer.createTopic(topic);
    let cuts = 0;
    const reader = connect(server, {
      retry,
      fetch: async (input, init) => {
        const response = await fetch(input, init);
        if (!String(input).endsWith('/Tail') || response.body === null) return response;
        cuts += 1;
        return new Response(cutAfter(response.body, 150 + 37 * cuts), response);
      },
    });
    const consumer = reader.consumer({ start: 'earliest' });
    consumer.assign([{ topic, partition: 0 }]);
    const seen: (string | null)[] = [];
    const signal = AbortSignal.timeout(120_000);
    const count = 200;
    const writing = (async () => {
      for (const value of numbers(count)) await writer.append({ topic, records: [{ value }] });
    })();
    while (seen.length < count) seen.push(...(await consumer.poll({ signal })).map(({ value }) => text(value)));
    await writing;
    assert.deepEqual(seen, numbers(count));
    assert.ok(cuts > 3, `the stream was cut ${cuts} times`);
    await consumer.close();
  });
});

test('without a server, calls end as unavailable and a consumer waits', async () => {
  const server = await Server.start();
  await server.stop();
  const client = connect(server, { retry: { ...retry, attemptsMax: 2 } });
  const error = await fails(client.listTopics(), 'UNAVAILABLE');
  assert.ok(error.retryable);
  const consumer = client.consumer();
  consumer.assign([{ topic: 't', partition: 0, at: 0n }]);
  assert.deepEqual(await consumer.poll({ timeoutMs: 200 }), []);
  await consumer.close();
});

test('closing ends the stream, also one that is just being opened', async () => {
  await withServer(async (server) => {
    const topic = freshTopic();
    await connect(server).createTopic(topic);
    const tails = async () => {
      const metrics = await (await fetch(`${server.url}/metrics`)).text();
      return /^comlog_tails (\d+)$/m.exec(metrics)?.[1];
    };
    for (const whenOpen of [false, true]) {
      const client = connect(server);
      const consumer = client.consumer();
      consumer.assign([{ topic, partition: 0, at: 0n }]);
      const isThere = () => client.connection.state === (whenOpen ? 'open' : 'connecting');
      while (!isThere()) await new Promise((resolve) => setImmediate(resolve));
      await client.close();
      // The server notices in its own time.
      while ((await tails()) !== '0') await new Promise((resolve) => setTimeout(resolve, 20));
    }
  });
});

/** The same body, broken off after so many bytes. */
function cutAfter(body: ReadableStream<Uint8Array>, bytes: number): ReadableStream<Uint8Array> {
  let left = bytes;
  return body.pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>({
      transform(chunk, controller) {
        controller.enqueue(chunk.subarray(0, left));
        left -= chunk.length;
        if (left <= 0) controller.error(new TypeError('the line went dead'));
      },
    }),
  );
}
