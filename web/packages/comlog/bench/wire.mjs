/** Work through a server, the same in Node and in a browser: what `comlog bench` does natively. */

const RECORD_BYTES = 100;

/**
 * Records per second of producing and of reading them back, and the median milliseconds of one append
 * after the other; the records are durable when they are acknowledged.
 */
export async function measureWire({ Client }, { url, records, singles }) {
  const client = new Client({ url });
  const topic = `bench-${crypto.randomUUID()}`;
  try {
    await client.createTopic(topic);
    const produce = await produced(client, topic, records);
    const tail = await tailed(client, topic, records);
    return { produce, tail, appendMs: await one(client, topic, singles) };
  } finally {
    await client.deleteTopic(topic);
    await client.close();
  }
}

async function produced(client, topic, records) {
  const value = new Uint8Array(RECORD_BYTES).fill(120);
  const producer = client.producer();
  const start = performance.now();
  for (let n = 0; n < records; n++) {
    let sending;
    while ((sending = producer.trySend({ topic, value })) === undefined) await producer.ready();
    // Told by `close`.
    sending.catch(() => undefined);
  }
  await producer.close();
  return perSecond(records, start);
}

async function tailed(client, topic, records) {
  const start = performance.now();
  let [seen, bytes] = [0, 0];
  const consumer = client.consumer();
  consumer.assign([{ topic, at: 'earliest' }]);
  while (seen < records) {
    for (const { value } of await consumer.poll({ maxRecords: 10_000 })) {
      seen += 1;
      bytes += value.length;
    }
  }
  const speed = perSecond(records, start);
  await consumer.close();
  if (seen !== records || bytes !== records * RECORD_BYTES) throw new Error(`read ${seen} records of ${bytes} bytes`);
  return speed;
}

async function one(client, topic, singles) {
  const records = [{ value: new Uint8Array(RECORD_BYTES).fill(120) }];
  const took = [];
  for (let n = 0; n < singles; n++) {
    const start = performance.now();
    await client.append({ topic, records });
    took.push(performance.now() - start);
  }
  return took.sort((a, b) => a - b)[singles >> 1];
}

function perSecond(records, start) {
  return (records / (performance.now() - start)) * 1_000;
}
