/** The suite of `comlog/log` in Node, and what needs Node's files and processes. */
import assert from 'node:assert/strict';
import { readFile, readdir } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { gzipSync } from 'node:zlib';

import * as api from 'comlog/node';

import { archiveFiles } from './log/archive-files.js';
import { serveFiles, type Files } from './log/files.js';
import { serverSegment } from './log/server-segment.js';
import { suite } from './log/suite.js';

const PACKAGE = new URL('../../', import.meta.url);
const GOLDEN = new URL('../../../crates/record/tests/golden/', PACKAGE);
/**
 * What the module may weigh after gzip. Each codec is there twice: whole, for the search by time, and in pieces,
 * for batches that decompress to more than can be held.
 */
const GZIP_BYTES_MAX = 216 * 1024;

let files: Files;
before(async () => {
  files = await serveFiles(new Map([...(await serverSegment()), ...(await archiveFiles())]));
  await assert.rejects(api.MemoryLog.open(), { code: 'FAILED_PRECONDITION' });
  const missing = api.init(new URL('nothing', files.url));
  await assert.rejects(missing, { code: 'UNAVAILABLE' }, 'a failure of init can be tried again');
  await Promise.all([api.init(), api.init()]);
});
after(() => files.close());

for (const [name, body] of Object.entries(suite)) {
  test(`in Node: ${name}`, () => body(api, files.url));
}

test('batches that other implementations wrote are read, whatever their codec', async () => {
  const names = await readdir(GOLDEN);
  for (const kind of ['few', 'many']) {
    const read = async (suffix: string) => {
      const batches = api.decodeBatches(await readFile(new URL(`${kind}.${suffix}`, GOLDEN)));
      return { batches, records: batches.flatMap(({ records }) => records) };
    };
    const expected = (await read('none')).records;
    assert.ok(expected.length > 0);
    const codecs = names.filter((name) => name.startsWith(`${kind}.`)).map((name) => name.split('.')[1]!);
    assert.deepEqual(codecs.sort(), ['gzip', 'lz4', 'none', 'snappy', 'zstd']);
    for (const codec of codecs) {
      const { batches, records } = await read(codec);
      assert.deepEqual(records, expected, codec);
      assert.ok(batches.every(({ compression }) => compression === codec));
    }
  }
});

test('the module and its glue are as small as promised', async () => {
  const made = [new URL('dist/comlog.wasm', PACKAGE)];
  const folder = new URL('dist/log/', PACKAGE);
  for (const name of await readdir(folder, { recursive: true })) {
    if (name.endsWith('.js')) made.push(new URL(name, folder));
  }
  const [module, ...scripts] = await Promise.all(made.map((file) => readFile(file)));
  const [moduleBytes, scriptBytes] = [module!, Buffer.concat(scripts)].map((part) => gzipSync(part, { level: 9 }).length);
  console.log(`comlog.wasm: ${moduleBytes} bytes after gzip, its JavaScript: ${scriptBytes}`);
  assert.ok(moduleBytes! <= GZIP_BYTES_MAX, `${moduleBytes} bytes`);
});
