/** A sealed segment of the real server, and what is in it. */
import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';

import { Client } from 'comlog';

import { Server } from '../server.js';

const RECORDS = 3_000;

/** The value of record `n`: some can be compressed, and they fill several blocks of a segment. */
function valueOf(n: number): string {
  return `${n} `.repeat((n % 40) * 10);
}

/** The files of a segment by their paths below `/server/`, and `expected.json` with its values. */
export async function serverSegment(): Promise<Map<string, Uint8Array>> {
  const server = await Server.start('--set', 'topic_defaults.segment_bytes=1MiB');
  try {
    await produce(server.url);
    const { folder, names } = await longest(join(server.data, 'topics'));
    // The second of three at least: its base offset is not 0, and it is sealed.
    const [start, end] = names.slice(1, 3).map((name) => Number(name.replace('.log', '')));
    if (start === undefined || end === undefined) throw new Error(`only ${names.length} segments`);
    const stem = names[1]!.replace('.log', '');
    const expected = Array.from({ length: end - start }, (_, at) => [start + at, valueOf(start + at)]);
    return new Map([
      ['/server/segment.log', await readFile(join(folder, `${stem}.log`))],
      ['/server/segment.index', await readFile(join(folder, `${stem}.index`))],
      ['/server/expected.json', new TextEncoder().encode(JSON.stringify(expected))],
    ]);
  } finally {
    await server.stop();
  }
}

/** The partition with the most segments, and their names. */
async function longest(topics: string): Promise<{ folder: string; names: string[] }> {
  const all = (await readdir(topics)).map(async (id) => {
    const folder = join(topics, id, '0');
    const names = (await readdir(folder)).filter((name) => name.endsWith('.log')).sort();
    return { folder, names };
  });
  const found = (await Promise.all(all)).sort((one, other) => other.names.length - one.names.length);
  return found[0]!;
}

async function produce(url: string): Promise<void> {
  const client = new Client({ url });
  try {
    const producer = client.producer({ batchRecordsMax: 20 });
    for (let n = 0; n < RECORDS; n++) {
      await producer.ready();
      producer.send({ topic: 'segments', value: valueOf(n) }).catch(() => undefined);
    }
    await producer.flush();
    await producer.close();
  } finally {
    client.close();
  }
}
