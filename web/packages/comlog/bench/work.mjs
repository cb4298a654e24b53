/** The work that is measured, the same in Node, in a browser, and in crates/wasm/examples/native.rs. */

const RECORDS = 1_000_000;
const RECORD_BYTES = 100;
const BATCH_RECORDS = 1_000;
const SINGLES = 100_000;
const ROUNDS = 5;

/** Records per second of each kind of work: medians over rounds, each on a log of its own. */
export async function measure({ MemoryLog, Segment }) {
  const rounds = [];
  for (let round = 0; round < ROUNDS; round++) rounds.push(await oneRound(MemoryLog, Segment));
  const median = (name) => rounds.map((round) => round[name]).sort((a, b) => a - b)[ROUNDS >> 1];
  const speeds = Object.keys(rounds[0]).map((name) => [name, Math.round(median(name))]);
  return {
    records: RECORDS,
    recordBytes: RECORD_BYTES,
    batchRecords: BATCH_RECORDS,
    rounds: ROUNDS,
    recordsPerSecond: Object.fromEntries(speeds),
  };
}

async function oneRound(MemoryLog, Segment) {
  const log = await MemoryLog.open({ bytesMax: 512 << 20, segmentBytesMax: 256 << 20 });
  const value = new Uint8Array(RECORD_BYTES).fill(120);
  const batch = Array.from({ length: BATCH_RECORDS }, () => ({ value }));
  const speeds = {};
  speeds.append = perSecond(RECORDS, () => {
    for (let n = 0; n < RECORDS; n += BATCH_RECORDS) log.append(batch);
  });
  speeds.read = perSecond(RECORDS, () => {
    let bytes = 0;
    for (let at = 0n; at < BigInt(RECORDS); ) {
      const { records, nextOffset } = log.read(at);
      for (const record of records) bytes += record.value.length;
      at = nextOffset;
    }
    if (bytes !== RECORDS * RECORD_BYTES) throw new Error(`read ${bytes} bytes`);
  });
  const encoded = [];
  speeds.readBatches = perSecond(RECORDS, () => {
    for (let at = 0n; at < BigInt(RECORDS); ) {
      const { bytes, nextOffset } = log.readBatches(at);
      encoded.push(bytes);
      at = nextOffset;
    }
  });
  const segment = await Segment.open(log.exportSegment(0n));
  log.close();
  speeds.appendOne = await singles(MemoryLog, value);
  const copy = await MemoryLog.open({ bytesMax: 512 << 20 });
  speeds.appendBatches = perSecond(RECORDS, () => encoded.forEach((bytes) => copy.appendBatches(bytes)));
  copy.close();
  const start = performance.now();
  let count = 0;
  for await (const item of segment.scan()) count += item.records.length;
  speeds.segment = (count / (performance.now() - start)) * 1_000;
  segment.close();
  if (count !== RECORDS) throw new Error(`the segment has ${count} records`);
  return speeds;
}

/** One record a call, each a batch of its own. */
async function singles(MemoryLog, value) {
  const log = await MemoryLog.open();
  const speed = perSecond(SINGLES, () => {
    for (let n = 0; n < SINGLES; n++) log.append({ value });
  });
  log.close();
  return speed;
}

function perSecond(records, work) {
  const start = performance.now();
  work();
  return (records / (performance.now() - start)) * 1_000;
}
