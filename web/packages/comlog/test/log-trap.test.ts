/** What becomes of a log whose WebAssembly traps: here it runs out of memory. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';

import { MemoryLog, init } from 'comlog/node';

/** The module with a memory that cannot grow beyond so many pages of 64 KiB. */
function bounded(module: Uint8Array, pagesMax: number): Uint8Array<ArrayBuffer> {
  let at = 8;
  const leb = () => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = module[at++]!;
      value |= (byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  for (;;) {
    const start = at;
    const id = module[at++];
    const end = leb() + at;
    if (id !== 5) {
      at = end;
      continue;
    }
    assert.deepEqual([leb(), leb()], [1, 0], 'one memory without a maximum');
    const pages = leb();
    const limits = [1, 1, ...encode(pages), ...encode(pagesMax)];
    return new Uint8Array([...module.subarray(0, start), 5, limits.length, ...limits, ...module.subarray(end)]);
  }
}

function encode(value: number): number[] {
  return value < 128 ? [value] : [(value & 127) | 128, ...encode(value >>> 7)];
}

test('a trap is INTERNAL, closes its log and ends its tails, and leaves others alone', async () => {
  const module = await readFile(new URL('../../dist/comlog.wasm', import.meta.url));
  await init(bounded(module, 100));
  const other = await MemoryLog.open();
  other.append({ value: 'safe' });
  const log = await MemoryLog.open();
  const tail = log.tail().next();
  tail.catch(() => undefined);
  let trapped: unknown;
  for (let n = 0; n < 100 && trapped === undefined; n++) {
    try {
      log.append({ value: new Uint8Array(1 << 20) });
    } catch (error) {
      trapped = error;
    }
  }
  const defect = { name: 'ComlogError', code: 'INTERNAL', reason: 'INTERNAL' };
  assert.throws(() => {
    throw trapped;
  }, defect);
  assert.equal(log.closed, true);
  assert.throws(() => log.stats(), defect);
  await assert.rejects(tail, defect);
  assert.throws(() => log.tail(), defect);
  assert.equal(other.read(0n).records.length, 1);
  other.append({ value: 'still' });
  const another = await MemoryLog.open();
  assert.equal(another.append({ value: 'new' }).nextOffset, 1n);
});
