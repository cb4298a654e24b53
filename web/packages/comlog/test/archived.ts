/** A topic of the real server that is in an archive, and nowhere else. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { comlog, consumed, type Line } from './cli.js';
import { Server } from './server.js';

const TOPIC = 'archived';
const CODECS = ['none', 'gzip', 'snappy', 'lz4', 'zstd'];
const RECORDS_PER_CODEC = 2_000;

export interface Archived {
  /** The archive; what is in it is described in crates/archive/format.md. */
  readonly folder: string;
  /** Below `folder`: where the segments and the manifest of the topic's only partition are. */
  readonly partition: string;
  /** Names of its segment files, ascending. */
  readonly segments: readonly string[];
  /** What `comlog consume` reads of it, when no segment is left on the server's disk. */
  readonly records: readonly Line[];
  remove(): Promise<void>;
}

/** Lets a server archive a topic, with every codec, keys and headers, until its disk has none of it. */
export async function archivedTopic(): Promise<Archived> {
  const folder = await mkdtemp(join(tmpdir(), 'comlog-archive-'));
  const remove = () => rm(folder, { recursive: true });
  const settings = ['topic_defaults.segment_bytes=1MiB', 'topic_defaults.local_retention_bytes=0'];
  const args = ['--archive', `file://${folder}`, '--archive-single-writer', ...settings.flatMap((one) => ['--set', one])];
  const server = await Server.start(...args);
  try {
    await produce(server.url);
    await comlog(server.url, ['archive', 'flush', TOPIC]);
    const partition = join('topics', await idOf(server.url), '0');
    await untilNoneIsLeft(join(server.data, partition));
    const segments = (await readdir(join(folder, partition))).filter((name) => name.endsWith('.log')).sort();
    assert.ok(segments.length >= 2, 'more than one segment');
    return { folder, partition, segments, records: await consumed(server.url, TOPIC), remove };
  } catch (error) {
    await remove();
    throw error;
  } finally {
    await server.stop();
  }
}

async function produce(url: string): Promise<void> {
  for (const codec of CODECS) {
    const lines = Array.from({ length: RECORDS_PER_CODEC }, (_, n) => `${codec}-${n}:${valueOf(codec, n)}\n`);
    const options = ['--key-separator', ':', '--header', `codec=${codec}`, '--compression', codec, '--batch-bytes', '16KiB'];
    await comlog(url, ['produce', TOPIC, '--no-progress', ...options], lines.join(''));
  }
}

/** Up to 700 letters that no codec makes much shorter. */
function valueOf(codec: string, n: number): string {
  const parts = Array.from({ length: n % 12 }, (_, at) => createHash('sha256').update(`${codec} ${n} ${at}`));
  return `grüße ${parts.map((part) => part.digest('hex')).join('')}`;
}

async function idOf(url: string): Promise<string> {
  const described = await comlog(url, ['topic', 'describe', TOPIC, '-o', 'json']);
  const id = /"id":\s*"([0-9a-f]{32})"/.exec(described)?.[1];
  assert.ok(id, 'the topic has an id');
  return id;
}

/** Waits until a partition's folder holds only the active segment, which is empty. */
async function untilNoneIsLeft(folder: string): Promise<void> {
  const segments = async () => (await readdir(folder)).filter((name) => name.endsWith('.log'));
  for (let tries = 0; (await segments()).length > 1; tries++) {
    assert.ok(tries < 600, 'local segments go once they are archived');
    await sleep(100);
  }
}
