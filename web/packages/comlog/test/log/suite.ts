/** What `comlog/log` promises, asked of it in Node and in a browser: nothing here needs either. */
import type * as Log from 'comlog/log';

export type Api = typeof Log;

/** Each promise by its name; a broken one throws. `files` is the address of a server that answers ranges. */
export const suite: Record<string, (api: Api, files: string) => Promise<void>> = {
  async 'what was appended is read back, absent and empty apart'({ MemoryLog }) {
    using log = await MemoryLog.open();
    const appended = log.append([
      { key: 'k', value: 'grüße', headers: [{ name: 'h', value: 'v' }, { name: 'h', value: null }] },
      { key: new Uint8Array(), value: null, timestamp: 5n },
      { timestamp: new Date(7) },
    ]);
    same(appended, { baseOffset: 0n, nextOffset: 3n, duplicate: false, timestamp: undefined });
    const { records, nextOffset } = log.read(0n);
    same(nextOffset, 3n);
    same(records.map(({ offset }) => offset), [0n, 1n, 2n]);
    same(records.map(({ key }) => text(key)), ['k', '', null]);
    same(records.map(({ value }) => text(value)), ['grüße', null, null]);
    same(records[0]!.headers.map(({ name, value }) => [name, text(value)]), [['h', 'v'], ['h', null]]);
    same(records.slice(1).map(({ timestamp }) => timestamp), [5n, 7n]);
    const age = BigInt(Date.now()) - records[0]!.timestamp;
    check(age >= 0n && age < 60_000n, `stamped ${age} ms ago`);
    same(log.read(3n), { records: [], nextOffset: 3n });
    same(log.read(1n).records.length, 2, 'a read begins in the middle of a batch');
  },

  async 'a read keeps to its bytes and leads on'({ MemoryLog }) {
    using log = await MemoryLog.open();
    for (let n = 0; n < 200; n++) log.append([{ value: `${n}` }, { value: 'x'.repeat(n) }]);
    for (const maxBytes of [1, 500, 1 << 20]) {
      const seen: bigint[] = [];
      for (let at = 0n; at < 400n; ) {
        const { records, nextOffset } = log.read(at, { maxBytes });
        check(nextOffset > at && records.length > 0, 'a read leads on');
        if (maxBytes === 1) same(records.length, 2 - Number(at % 2n), 'one batch at least');
        seen.push(...records.map(({ offset }) => offset));
        at = nextOffset;
      }
      same(seen, Array.from({ length: 400 }, (_, n) => BigInt(n)));
    }
  },

  async 'a time finds its record'({ MemoryLog }) {
    using log = await MemoryLog.open();
    log.append([10n, 30n, 20n].map((timestamp) => ({ timestamp })));
    log.append({ timestamp: 40n });
    same(log.offsetForTimestamp(0), { offset: 0n, timestamp: 10n });
    same(log.offsetForTimestamp(new Date(11)), { offset: 1n, timestamp: 30n });
    same(log.offsetForTimestamp(31n), { offset: 3n, timestamp: 40n });
    same(log.offsetForTimestamp(41n), undefined);
  },

  async 'over its budget the oldest segments go'({ MemoryLog }) {
    using log = await MemoryLog.open({ bytesMax: 10_000, segmentBytesMax: 2_000 });
    for (let n = 0; n < 100; n++) {
      log.append({ value: new Uint8Array(500) });
      check(log.stats().bytes <= 10_000, 'within the budget');
    }
    const { startOffset, endOffset, segments, bytes } = log.stats();
    same(endOffset, 100n);
    check(startOffset >= 80n && startOffset < 90n, `starts at ${startOffset}`);
    same(segments[0]!.baseOffset, startOffset);
    same(bytes, segments.reduce((sum, segment) => sum + segment.bytes, 0));
    const error = fails(() => log.read(0n), 'OUT_OF_RANGE', 'OFFSET_OUT_OF_RANGE');
    same(error.offset, startOffset);
    same(fails(() => log.read(101n), 'OUT_OF_RANGE').offset, 100n);
    const large = { value: new Uint8Array(10_000) };
    fails(() => log.append(large), 'RESOURCE_EXHAUSTED', 'STORAGE_FULL');
    same(log.stats().startOffset, startOffset, 'what is refused drops nothing');
    log.append({ value: new Uint8Array(9_900) });
    same(log.read(100n).records.length, 1, 'what just fits takes the place of all');
    same(log.stats().startOffset, 100n);
  },

  async 'trim raises the start'({ MemoryLog }) {
    using log = await MemoryLog.open();
    for (let n = 0; n < 10; n++) log.append({ value: `${n}` });
    same(log.trim(4n), 4n);
    same(fails(() => log.read(3n), 'OUT_OF_RANGE').offset, 4n);
    same(text(log.read(4n).records[0]!.value), '4');
    fails(() => log.trim(11n), 'OUT_OF_RANGE');
  },

  async 'conditions and sequences are kept'({ MemoryLog }) {
    using log = await MemoryLog.open();
    log.append({ value: 'a' }, { expectedOffset: 0n });
    const error = fails(() => log.append({}, { expectedOffset: 0n }), 'FAILED_PRECONDITION', 'UNEXPECTED_OFFSET');
    same(error.offset, 1n);
    const producer = { id: 7n, epoch: 0, sequence: 0 };
    same(log.append([{}, {}], { producer }).duplicate, false);
    const again = log.append([{}, {}], { producer });
    same(again, { baseOffset: 1n, nextOffset: 3n, duplicate: true, timestamp: undefined });
    const gap = { producer: { ...producer, sequence: 9 } };
    fails(() => log.append({}, gap), 'FAILED_PRECONDITION', 'OUT_OF_ORDER_SEQUENCE');
    same(log.stats().endOffset, 3n);
  },

  async 'a log may stamp the time of the append'({ MemoryLog }) {
    using log = await MemoryLog.open({ timestampType: 'append' });
    const { timestamp } = log.append({ timestamp: 5n });
    check(timestamp !== undefined && timestamp > 5n, 'the answer says when');
    same(log.read(0n).records[0]!.timestamp, timestamp);
  },

  async 'a tail sees what is there and what comes'({ MemoryLog }) {
    using log = await MemoryLog.open();
    log.append([{ value: '0' }, { value: '1' }]);
    const late = setTimeout(() => log.append({ value: '2' }), 5);
    const seen: string[] = [];
    for await (const { value } of log.tail({ from: 'earliest' })) {
      seen.push(text(value)!);
      if (seen.length === 3) break;
    }
    clearTimeout(late);
    same(seen, ['0', '1', '2']);
    const latest = log.tail();
    log.append({ value: '3' });
    same(text((await latest.next()).value.value), '3', 'from the time of the call');
    const waiting = latest.next();
    log.close();
    same((await waiting).done, true, 'closing ends it');
  },

  async 'a tail can be aborted, and says what it missed'({ MemoryLog }) {
    using log = await MemoryLog.open();
    const abort = new AbortController();
    const waiting = log.tail({ signal: abort.signal }).next();
    setTimeout(() => abort.abort(new Error('enough')), 5);
    same((await rejects(waiting)).message, 'enough');
    log.append([{}, {}, {}]);
    const [strict, lenient] = (['error', 'earliest'] as const).map((outOfRange) =>
      log.tail({ from: 0n, outOfRange }),
    );
    log.trim(2n);
    const error = await rejects(strict!.next());
    same([error.code, error.offset], ['OUT_OF_RANGE', 2n]);
    same((await lenient!.next()).value.offset, 2n);
  },

  async 'a closed log takes no calls'({ MemoryLog }) {
    const log = await MemoryLog.open();
    log.append({});
    same(log.closed, false);
    log.free();
    log.close();
    same(log.closed, true);
    for (const call of [() => log.append({}), () => log.read(0n), () => log.stats(), () => log.tail()]) {
      fails(call, 'FAILED_PRECONDITION');
    }
  },

  async 'arguments are checked'({ MemoryLog, encodeBatch, Segment }) {
    using log = await MemoryLog.open();
    const wrong = <T>(value: unknown) => value as T;
    fails(() => log.read(wrong(0)), 'INVALID_ARGUMENT');
    fails(() => log.read(-1n), 'INVALID_ARGUMENT');
    fails(() => log.read(2n ** 63n), 'INVALID_ARGUMENT');
    fails(() => log.read(0n, { maxBytes: 0 }), 'INVALID_ARGUMENT');
    fails(() => log.append([]), 'INVALID_ARGUMENT', 'INVALID_REQUEST');
    fails(() => log.append({}, { compression: wrong('brotli') }), 'INVALID_ARGUMENT');
    fails(() => log.appendBatches(new Uint8Array()), 'INVALID_ARGUMENT');
    fails(() => encodeBatch([{}], { compression: 'zstd' }), 'INVALID_ARGUMENT');
    fails(() => encodeBatch([{ value: new Uint8Array(9 << 20) }]), 'INVALID_ARGUMENT', 'BATCH_TOO_LARGE');
    same((await rejects(MemoryLog.open({ bytesMax: -1 }))).code, 'INVALID_ARGUMENT');
    same((await rejects(Segment.open(wrong({})))).code, 'INVALID_ARGUMENT');
    log.append({ value: 'still works' });
  },

  async 'batches of each codec are written and read'({ encodeBatch, decodeBatches, MemoryLog }) {
    const records = Array.from({ length: 50 }, (_, n) => ({ key: `${n}`, value: 'some text '.repeat(n) }));
    const producer = { id: 3n, epoch: 1, sequence: 4 };
    const encoded = (['none', 'gzip', 'snappy', 'lz4'] as const).map((compression) =>
      encodeBatch(records, { compression, baseOffset: 100n, producer }),
    );
    for (const [index, compression] of (['none', 'gzip', 'snappy', 'lz4'] as const).entries()) {
      const [batch, ...more] = decodeBatches(encoded[index]!);
      same(more, []);
      same(batch!.compression, compression);
      same([batch!.baseOffset, batch!.nextOffset, batch!.recordCount], [100n, 150n, 50]);
      same([batch!.producerId, batch!.producerEpoch, batch!.baseSequence], [3n, 1, 4]);
      same(batch!.bytes, encoded[index]!.length);
      same(batch!.records.map(({ value }) => text(value)), records.map(({ value }) => value));
    }
    check(encoded[1]!.length < encoded[0]!.length / 5, 'gzip makes it smaller');
    const damaged = encoded[1]!.slice();
    damaged[80]! ^= 1;
    fails(() => decodeBatches(damaged), 'INVALID_ARGUMENT', 'INVALID_RECORD_BATCH');
    fails(() => decodeBatches(encoded[0]!.subarray(0, 99)), 'INVALID_ARGUMENT');
    using log = await MemoryLog.open();
    fails(() => log.appendBatches(damaged), 'INVALID_ARGUMENT', 'INVALID_RECORD_BATCH');
  },

  async 'encoded batches are copied from log to log'({ MemoryLog }) {
    using from = await MemoryLog.open();
    using to = await MemoryLog.open();
    for (let n = 0; n < 20; n++) {
      from.append([{ value: `${n}a` }, { value: `${n}b` }], { compression: n % 2 ? 'lz4' : 'none' });
    }
    for (let at = 0n; ; ) {
      const { bytes, baseOffset, nextOffset } = from.readBatches(at, { maxBytes: 1_000 });
      if (bytes.length === 0) break;
      same(to.appendBatches(bytes, { expectedOffset: at }), {
        baseOffset,
        nextOffset,
        duplicate: false,
        timestamp: undefined,
      });
      at = nextOffset;
    }
    same(to.read(0n), from.read(0n));
    same(to.stats().endOffset, 40n);
  },

  async 'a million records of 100 bytes are kept and read back'({ MemoryLog }) {
    using log = await MemoryLog.open({ bytesMax: 256 << 20 });
    const value = (n: number) => {
      const bytes = new Uint8Array(100).fill(n);
      new DataView(bytes.buffer).setUint32(0, n);
      return bytes;
    };
    for (let n = 0; n < 1_000_000; n += 1_000) {
      log.append(Array.from({ length: 1_000 }, (_, at) => ({ value: value(n + at) })));
    }
    let count = 0;
    for (let at = 0n; at < 1_000_000n; ) {
      const { records, nextOffset } = log.read(at);
      for (const { offset, value } of records) {
        const view = new DataView(value!.buffer, value!.byteOffset, value!.length);
        if (offset !== BigInt(count) || value!.length !== 100 || view.getUint32(0) !== count || value![99] !== (count & 255)) {
          throw new Error(`record ${count} is not as it was`);
        }
        count += 1;
      }
      at = nextOffset;
    }
    same(count, 1_000_000);
    const { memoryBytes, bytes, startOffset } = log.stats();
    same(startOffset, 0n);
    check(memoryBytes < 1.5 * bytes, `${memoryBytes} bytes of memory for ${bytes} of batches`);
    using small = await MemoryLog.open();
    check(small.stats().memoryBytes < 4 << 20, 'another log has a memory of its own');
  },

  async 'a segment is read from bytes, a blob, and ranges'({ MemoryLog, Segment, httpSource }, files) {
    using log = await MemoryLog.open({ bytesMax: 8 << 20 });
    for (let n = 0; n < 300; n++) {
      log.append([{ value: `${n}` }, { value: new Uint8Array(5_000) }], { compression: n % 3 ? 'none' : 'snappy' });
    }
    const { segments } = log.stats();
    check(segments.length > 1 && segments[0]!.sealed, 'there is a sealed segment');
    const { baseOffset, endOffset } = segments[0]!;
    const bytes = log.exportSegment(baseOffset);
    const expected = Array.from({ length: Number(endOffset - baseOffset) }, (_, n) => baseOffset + BigInt(n));
    const ranges: [number, number][] = [];
    const ranged = {
      size: bytes.length,
      read: async (start: number, end: number) => (ranges.push([start, end]), bytes.slice(start, end)),
    };
    const response = await fetch(`${files}/upload`, { method: 'PUT', body: bytes.slice() });
    check(response.ok, 'the file is on the server');
    const http = await httpSource(`${files}/upload`);
    for (const source of [bytes, bytes.slice().buffer, new Blob([bytes.slice()]), ranged, http]) {
      using segment = await Segment.open(source);
      same(segment.size, bytes.length);
      const records = await all(segment.records());
      same(records.map(({ offset }) => offset), expected);
      same(text(records[2]!.value), '1');
      const from = baseOffset + 101n;
      const some = await all(segment.records({ from }));
      same(some[0]!.offset, from);
      same(some.length, expected.length - 101);
    }
    check(ranges.every(([start, end]) => start < end && end <= bytes.length), 'ranges lie inside');
    const missing = await rejects(httpSource(`${files}/nothing`));
    same(missing.code, 'NOT_FOUND');
  },

  async 'a segment made by the server has the same records'({ Segment, httpSource }, files) {
    const expected = (await (await fetch(`${files}/server/expected.json`)).json()) as [number, string][];
    check(expected.length > 100, 'there are records');
    const fetched = async (name: string) => new Uint8Array(await (await fetch(`${files}/server/${name}`)).arrayBuffer());
    const index = await fetched('segment.index');
    let blocks = 0;
    const counted = async () => {
      const { size, read } = await httpSource(`${files}/server/segment.log`);
      return { size, read: (start: number, end: number) => ((blocks += end - start), read(start, end)) };
    };
    for (const source of [await fetched('segment.log'), await counted()]) {
      using segment = await Segment.open(source, { index });
      const records = await all(segment.records());
      same(records.map(({ offset, value }) => [Number(offset), text(value)]), expected);
      const items = await all(segment.scan());
      check(items.every((item) => item.kind === 'batch' && !item.error), 'all are batches');
    }
    blocks = 0;
    const [last] = expected.at(-1)!;
    using segment = await Segment.open(await counted(), { index });
    const tail = await all(segment.records({ from: BigInt(last) }));
    same(tail.map(({ offset }) => Number(offset)), [last]);
    check(blocks <= 512 << 10, `the index leads to the end, ${blocks} bytes were read`);
    const other = await rejects(Segment.open(new Uint8Array(5), { index }));
    same(other.code, 'INVALID_ARGUMENT', 'an index of another segment');
  },

  async 'an archived partition is read without a server, from another origin'({ ArchivedPartition }, files) {
    const expected = (await (await fetch(`${files}/archive.json`)).json()) as ArchivedLine[];
    check(expected.length > 1000, 'there are records');
    const whole = await ArchivedPartition.open(archiveOf(files, 'whole'));
    same([whole.topic, whole.partition, whole.startOffset, whole.endOffset], ['archived', 0, 0n, BigInt(expected.length)]);
    check(whole.segments.length >= 2, 'several segments');
    const lines = (await all(whole.records())).map((record) => ({
      offset: Number(record.offset),
      timestamp_ms: Number(record.timestamp),
      key: text(record.key),
      value: text(record.value),
      headers: record.headers.map(({ name, value }) => ({ name, value: text(value) })),
    }));
    same(lines.length, expected.length);
    lines.forEach((line, at) => {
      const { offset, timestamp_ms, key, value, headers } = expected[at]!;
      same(line, { offset, timestamp_ms, key, value, headers });
    });
    const trimmed = await ArchivedPartition.open(`${archiveOf(files, 'trimmed')}/`);
    check(trimmed.startOffset > 0n, 'it was trimmed');
    same((await all(trimmed.records())).map(({ offset }) => offset), range(trimmed.startOffset, whole.endOffset));
    const early = await rejects(trimmed.records({ from: trimmed.startOffset - 1n }).next());
    same([early.code, early.offset], ['OUT_OF_RANGE', trimmed.startOffset]);
  },

  async 'an archived partition is read from an offset on, and little before it'({ ArchivedPartition }, files) {
    let bytes = 0;
    const counting: typeof fetch = async (url, init) => {
      const response = await fetch(url, init);
      const [, start, end] = /^bytes (\d+)-(\d+)/.exec(response.headers.get('content-range') ?? '') ?? [0, 0, -1];
      bytes += Number(end) + 1 - Number(start);
      return response;
    };
    const archived = await ArchivedPartition.open(archiveOf(files, 'whole'), { fetch: counting });
    const second = archived.segments[1]!.baseOffset;
    same((await archived.records({ from: second }).next()).value?.offset, second);
    for (const from of [second - 1n, archived.endOffset - 1n]) {
      bytes = 0;
      const { value } = (await archived.records({ from }).next()) as { value: { offset: bigint } };
      same(value.offset, from);
      check(bytes > 1 && bytes <= 513 << 10, `${bytes} bytes were read for offset ${from}`);
    }
    same(await all(archived.records({ from: archived.endOffset })), []);
    const behind = await rejects(archived.records({ from: archived.endOffset + 1n }).next());
    same([behind.code, behind.offset], ['OUT_OF_RANGE', archived.endOffset]);
    const abort = new AbortController();
    const reading = archived.records({ signal: abort.signal });
    await reading.next();
    abort.abort(new Error('enough'));
    same((await rejects(all(reading))).message, 'enough');
  },

  async 'an archive that is not as it should be is refused'({ ArchivedPartition }, files) {
    const refused = async (variant: string) => (await rejects(ArchivedPartition.open(archiveOf(files, variant)))).code;
    same(await refused('damaged'), 'DATA_LOSS');
    same(await refused('overlapping'), 'DATA_LOSS');
    same(await refused('newer'), 'UNIMPLEMENTED');
    same(await refused('nothing'), 'NOT_FOUND');
    const short = await ArchivedPartition.open(archiveOf(files, 'short'));
    same((await rejects(short.records().next())).code, 'DATA_LOSS', 'an object of another size');
    const without = (gone: RegExp): typeof fetch => async (url, init) =>
      gone.test(String(url)) ? new Response(null, { status: 404 }) : fetch(url, init);
    const noIndex = await ArchivedPartition.open(archiveOf(files, 'whole'), { fetch: without(/index$/) });
    const from = noIndex.segments[0]!.endOffset - 1n;
    same((await noIndex.records({ from }).next()).value?.offset, from, 'an index is a hint');
    const noLog = await ArchivedPartition.open(archiveOf(files, 'whole'), { fetch: without(/log$/) });
    same((await rejects(noLog.records().next())).code, 'NOT_FOUND', 'retention removed it');
  },

  async 'damage in a segment is told, and what is behind it is read'({ MemoryLog, Segment }) {
    using log = await MemoryLog.open();
    for (let n = 0; n < 30; n++) log.append([{ value: `${n}a` }, { value: `${n}b` }]);
    const bytes = log.exportSegment(0n);
    using whole = await Segment.open(bytes);
    const batches = (await all(whole.scan())).filter((item) => item.kind === 'batch');
    same(batches.length, 30);
    const hurt = batches[10]!;
    const damaged = new Uint8Array(bytes.length + 5_000);
    damaged.set(bytes);
    damaged[hurt.position + 70]! ^= 1;
    using segment = await Segment.open(damaged, { baseOffset: 0n });
    const items = await all(segment.scan());
    same(items.map(({ kind }) => kind).filter((kind) => kind !== 'batch'), ['damage', 'zeros']);
    const damage = items[10]!;
    if (damage.kind !== 'damage') throw new Error('the eleventh item is the damage');
    same([damage.start, damage.end], [hurt.position, batches[11]!.position]);
    same([damage.firstOffset, damage.nextOffset], [20n, 22n]);
    const error = await rejects(all(segment.records()));
    same([error.code, error.reason, error.offset], ['DATA_LOSS', 'CORRUPT', 22n]);
    const told: unknown[] = [];
    const records = await all(segment.records({ onDamage: (found) => told.push(found) }));
    same(told, [damage]);
    same(records.map(({ offset }) => offset).includes(20n), false);
    same(records.length, 58);
    same((await all(segment.records({ from: 22n }))).length, 38, 'behind the damage nothing is amiss');
  },

  async 'a source that fails or gives too little fails the scan, not the segment'({ MemoryLog, Segment }) {
    using log = await MemoryLog.open();
    log.append({ value: 'a' });
    const bytes = log.exportSegment(0n);
    let mode: 'fail' | 'short' | 'hang' | 'work' = 'fail';
    const read = async (start: number, end: number, signal?: AbortSignal) => {
      if (mode === 'fail') throw new Error('no network');
      if (mode === 'hang') return new Promise<never>((_, reject) => signal!.addEventListener('abort', () => reject(signal!.reason)));
      return bytes.subarray(start, mode === 'short' ? end - 1 : end);
    };
    using segment = await Segment.open({ size: bytes.length, read });
    same((await rejects(all(segment.scan()))).message, 'no network');
    mode = 'short';
    same((await rejects(all(segment.scan()))).code, 'UNAVAILABLE');
    mode = 'hang';
    const abort = new AbortController();
    const hanging = all(segment.scan({ signal: abort.signal }));
    setTimeout(() => abort.abort(new Error('enough')), 5);
    same((await rejects(hanging)).message, 'enough');
    mode = 'work';
    const [one, other] = await Promise.all([all(segment.scan()), all(segment.records())]);
    same([one.length, other.length], [1, 1], 'scans take turns');
    segment.close();
    same((await rejects(all(segment.scan()))).code, 'FAILED_PRECONDITION');
  },
};

interface Told extends Error {
  code?: string;
  reason?: string;
  offset?: bigint;
}

/** What the command line prints of a record. */
interface ArchivedLine {
  offset: number;
  timestamp_ms: number;
  key: string | null;
  value: string | null;
  headers: { name: string; value: string | null }[];
}

/** The same web server by another name: to a browser, another origin. */
function archiveOf(files: string, variant: string): string {
  return `${files.replace('127.0.0.1', 'localhost')}/archive/${variant}`;
}

function range(start: bigint, end: bigint): bigint[] {
  return Array.from({ length: Number(end - start) }, (_, at) => start + BigInt(at));
}

function text(bytes: Uint8Array | null): string | null {
  return bytes === null ? null : new TextDecoder().decode(bytes);
}

function check(holds: boolean, what: string): void {
  if (!holds) throw new Error(`not so: ${what}`);
}

function same(actual: unknown, expected: unknown, what = 'values'): void {
  const [shown, wanted] = [show(actual), show(expected)];
  if (shown !== wanted) throw new Error(`${what}: ${shown.slice(0, 500)} instead of ${wanted.slice(0, 500)}`);
}

function show(value: unknown): string {
  const replace = (_: string, part: unknown) => {
    if (typeof part === 'bigint') return `${part}n`;
    if (part === undefined) return 'undefined';
    return part instanceof Uint8Array ? [...part] : part;
  };
  return JSON.stringify(value, replace) ?? 'undefined';
}

function fails(call: () => unknown, code: string, reason?: string): Told {
  try {
    call();
  } catch (error) {
    const told = error as Told;
    same([told.name, told.code], ['ComlogError', code], told.message);
    if (reason !== undefined) same(told.reason, reason, told.message);
    return told;
  }
  throw new Error(`the call succeeds instead of ${code}`);
}

async function rejects(promise: Promise<unknown>): Promise<Told> {
  return promise.then(
    () => Promise.reject(new Error('the promise is fulfilled')),
    (error: Told) => error,
  );
}

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const item of items) list.push(item);
  return list;
}
