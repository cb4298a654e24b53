/** The README's example of the log does what it says. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';

import * as inBrowsers from 'comlog/log';

test('the example of the README runs in plain Node', async () => {
  const readme = await readFile(new URL('../../README.md', import.meta.url), 'utf8');
  const [, example] = /```ts\n(import \{ MemoryLog[^`]*)```/.exec(readme) ?? [];
  assert.ok(example, 'there is an example');
  // Node 20 has no `using`.
  const script = example.replaceAll('using ', 'const ');
  const run = spawnSync(process.execPath, ['--input-type=module', '--eval', script], {
    cwd: new URL('../..', import.meta.url),
    encoding: 'utf8',
  });
  assert.equal(run.stderr, '');
  assert.match(run.stdout, /^0n Uint8Array\(5\)[^]*\n1n Uint8Array\(6\)[^]*\n0n\n1n\n$/);
});

test('importing the entry of browsers does nothing on a server, and calls ask for init', async () => {
  await assert.rejects(inBrowsers.MemoryLog.open(), { code: 'FAILED_PRECONDITION' });
  assert.throws(() => inBrowsers.encodeBatch([{}]), { code: 'FAILED_PRECONDITION' });
});
