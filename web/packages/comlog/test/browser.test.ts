import assert from 'node:assert/strict';
import { test } from 'node:test';

import type * as comlog from 'comlog';

import { startBrowser } from './browser.js';
import { Server } from './server.js';
import { connect, freshTopic, numbers, values } from './support.js';

/** What the fixture leaves for us; only inside of `evaluate`. */
declare const client: comlog.Client;
declare const seen: string[];

const browser = await startBrowser();

/** Runs `work` against a server that allows the fixture's origin. */
async function withServer(work: (server: Server) => Promise<void>): Promise<void> {
  const server = await Server.start('--cors-origin', browser.origin);
  try {
    await work(server);
  } finally {
    await server.stop();
  }
}

/** Follows a topic in a page, from its beginning, into `seen`. */
function follow(topic: string): void {
  const decoder = new TextDecoder();
  Object.assign(globalThis, { seen: [] });
  void (async () => {
    for await (const record of client.tail({ topic, partition: 0, at: 'earliest' })) {
      seen.push(decoder.decode(record.value ?? new Uint8Array()));
    }
  })();
}

test('a page produces and consumes', async () => {
  await withServer(async (server) => {
    const page = await browser.open(server);
    const topic = freshTopic();
    const offsets = await page.evaluate(async (topic) => {
      const producer = client.producer();
      const sends = Array.from({ length: 500 }, (_, n) => producer.send({ topic, value: String(n) }));
      const delivered = await Promise.all(sends);
      await producer.close();
      return delivered.map(({ offset }) => Number(offset));
    }, topic);
    assert.deepEqual(offsets, numbers(500).map(Number));
    assert.deepEqual(values((await connect(server).read({ topic, offset: 0n })).records), numbers(500));
    await page.evaluate(follow, topic);
    await connect(server).append({ topic, records: [{ value: 'from outside' }] });
    await page.waitForFunction('seen.length === 501');
    assert.deepEqual(await page.evaluate(() => seen), [...numbers(500), 'from outside']);
    await page.close();
  });
});

test('error codes arrive in a page as themselves', async () => {
  await withServer(async (server) => {
    const page = await browser.open(server);
    const errors = await page.evaluate(async () => {
      const told = async (promise: Promise<unknown>) =>
        promise.then(() => undefined, (error: comlog.ComlogError) => JSON.parse(JSON.stringify(error)));
      await client.createTopic('here');
      return [
        await told(client.describeTopic('nowhere')),
        await told(client.read({ topic: 'here', offset: 5n })),
        await told(client.append({ topic: 'here', records: [{ value: 'x' }], expectedOffset: 3n })),
      ];
    });
    const facts = errors.map(({ code, reason, topic, offset }) => [code, reason, topic, offset]);
    assert.deepEqual(facts, [
      ['NOT_FOUND', 'TOPIC_NOT_FOUND', 'nowhere', undefined],
      ['OUT_OF_RANGE', 'OFFSET_OUT_OF_RANGE', 'here', '0'],
      ['FAILED_PRECONDITION', 'UNEXPECTED_OFFSET', 'here', '0'],
    ]);
    await page.close();
  });
});

test('a page of an origin that is not allowed gets nothing', async () => {
  const server = await Server.start();
  try {
    const page = await browser.open(server);
    const code = await page.evaluate(() =>
      client.listTopics({ signal: AbortSignal.timeout(20_000) }).catch((error: comlog.ComlogError) => error.code),
    );
    assert.equal(code, 'UNAVAILABLE');
    await page.close();
  } finally {
    await server.stop();
  }
});

for (const shared of [false, true]) {
  const kind = shared ? 'shared by two tabs' : 'of a page';
  test(`the server is restarted under a tail ${kind}: nothing is lost or doubled`, async () => {
    await withServer(async (server) => {
      const topic = freshTopic();
      const writer = connect(server, { retry: { backoffMinMs: 10, backoffMaxMs: 100 } });
      await writer.createTopic(topic);
      const pages = [await browser.open(server, { shared })];
      if (shared) pages.push(await browser.open(server, { shared }));
      for (const page of pages) await page.evaluate(follow, topic);
      const producer = writer.producer({ batchRecordsMax: 10 });
      const count = 1_500;
      const sends: Promise<unknown>[] = [];
      for (const value of numbers(count)) {
        sends.push(producer.send({ topic, partition: 0, value }));
        if (sends.length % 20 === 0) await new Promise((resolve) => setTimeout(resolve, 5));
        if (sends.length % 500 === 0) {
          await server.kill();
          await server.restart();
        }
      }
      await Promise.all(sends);
      await producer.close();
      for (const page of pages) {
        await page.waitForFunction((count) => seen.length >= count, count);
        assert.deepEqual(await page.evaluate(() => seen), numbers(count));
        await page.close();
      }
    });
  });
}

test('ten tabs tail over plain HTTP, and a call is still answered', async () => {
  await withServer(async (server) => {
    const topic = freshTopic();
    const outside = connect(server);
    await outside.createTopic(topic);
    const pages = [];
    for (let tab = 0; tab < 10; tab += 1) {
      const page = await browser.open(server, { shared: true });
      await page.evaluate(follow, topic);
      pages.push(page);
    }
    await outside.append({ topic, records: [{ value: 'to all' }] });
    for (const page of pages) await page.waitForFunction('seen.length === 1');
    // With a stream in every tab the browser's six connections would be taken and this never answered.
    const topics = await pages[9]!.evaluate(() => client.listTopics({ timeoutMs: 10_000 }).then((all) => all.length));
    assert.ok(topics > 0);
    const metrics = await (await fetch(`${server.url}/metrics`)).text();
    assert.match(metrics, /^comlog_tails 1$/m, 'ten tabs share one stream');

    // The tabs that stay go on when others leave.
    for (const page of pages.slice(0, 5)) await page.close();
    await outside.append({ topic, records: [{ value: 'to five' }] });
    for (const page of pages.slice(5)) {
      await page.waitForFunction('seen.length === 2');
      await page.close();
    }
  });
});

const WITHOUT_WORKER = {
  'has none': () => {
    Reflect.deleteProperty(globalThis, 'SharedWorker');
  },
  'cannot load it': () => {
    const Native = SharedWorker;
    globalThis.SharedWorker = class extends Native {
      constructor(_url: string | URL, options?: string | WorkerOptions) {
        super('/nowhere.js', options);
      }
    };
  },
  'may not start it': () => {
    globalThis.SharedWorker = class {
      constructor() {
        throw new Error('forbidden');
      }
    } as unknown as typeof SharedWorker;
  },
};

for (const [why, cripple] of Object.entries(WITHOUT_WORKER)) {
  test(`a tab that ${why} has a stream of its own`, async () => {
    await withServer(async (server) => {
      const topic = freshTopic();
      await connect(server).createTopic(topic);
      const page = await browser.context.newPage();
      await page.addInitScript(cripple);
      await page.goto(`${browser.origin}/?server=${server.url}&shared`);
      await page.waitForFunction('globalThis.client !== undefined');
      await page.evaluate(follow, topic);
      await connect(server).append({ topic, records: [{ value: 'alone' }] });
      await page.waitForFunction('seen.length === 1');
      await page.close();
    });
  });
}
