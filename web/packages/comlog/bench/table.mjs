/**
 * The log in WebAssembly beside the native core, and the client over gRPC-web beside the native one:
 * prints a table in Markdown. `cargo xtask bench --browser` builds what it needs and runs it.
 *
 *     COMLOG_BIN=.../comlog COMLOG_NATIVE=.../examples/native node bench/table.mjs
 */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { cpus, release } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';

import * as client from 'comlog';

import { openInChromium } from './chromium.mjs';
import { measureWire } from './wire.mjs';

const ROUNDS = 3;
const RECORDS = 500_000;
const SINGLES = 500;
const LOG = fileOf('log.mjs');
const run = promisify(execFile);
const { COMLOG_BIN, COMLOG_NATIVE } = process.env;
if (!COMLOG_BIN || !COMLOG_NATIVE) throw new Error('COMLOG_BIN and COMLOG_NATIVE name what is measured');

const rounds = [];
for (let round = 1; round <= ROUNDS; round++) {
  console.error(`round ${round} of ${ROUNDS}`);
  rounds.push({ ...(await logRound()), ...(await wireRound()) });
}
print();

/** Records per second of each work in each runtime. */
async function logRound() {
  const [native, node, chromium] = [
    await json(COMLOG_NATIVE),
    await json(process.execPath, LOG),
    await json(process.execPath, LOG, '--chromium'),
  ].map(({ recordsPerSecond }) => recordsPerSecond);
  const names = {
    append: 'log: append, 1,000 records a batch',
    appendOne: 'log: append, one record a batch',
    read: 'log: read every record',
    appendBatches: 'log: append encoded batches',
    readBatches: 'log: read encoded batches',
    segment: 'segment file: read every record',
  };
  return Object.fromEntries(
    Object.entries(names).map(([work, name]) => [name, [native[work], node[work], chromium[work]]]),
  );
}

/** The same through a server of its own, with its data in the working directory. */
async function wireRound() {
  const folder = await mkdtemp(join(process.cwd(), 'comlog-bench-'));
  const chromium = await openInChromium();
  const server = await serve(folder, chromium.origin);
  try {
    const work = { url: server.url, records: RECORDS, singles: SINGLES };
    const native = await nativeWire(server.url);
    const node = await measureWire(client, work);
    const page = await chromium.run(work);
    const row = (name) => [native[name], node[name], page[name]];
    return {
      'server: produce': row('produce'),
      'server: tail what is there': row('tail'),
      'server: one append after the other, ms (p50)': row('appendMs'),
    };
  } finally {
    await chromium.close();
    server.child.kill();
    await once(server.child, 'exit');
    await rm(folder, { recursive: true });
  }
}

async function serve(folder, origin) {
  const args = ['serve', '--listen', '127.0.0.1:0', '--data-dir', join(folder, 'data'), '--cors-origin', origin];
  const child = spawn(COMLOG_BIN, args, { stdio: ['ignore', 'pipe', 'ignore'] });
  for await (const line of createInterface({ input: child.stdout })) {
    const url = /https?:\/\/\S+/.exec(line)?.[0];
    if (url === undefined) continue;
    child.stdout.resume();
    return { child, url };
  }
  throw new Error('the server did not start');
}

async function nativeWire(url) {
  const options = ['--records', `${RECORDS}`, '--latency-records', `${SINGLES}`, '-o', 'json', '--server', url];
  const { stdout } = await run(COMLOG_BIN, ['bench', ...options]);
  const lines = stdout.trim().split('\n').map((line) => JSON.parse(line));
  const found = (name) => lines.find((line) => line.name === name);
  return {
    produce: found('produce').records_per_second,
    tail: found('consume').records_per_second,
    appendMs: found('latency').p50_ms,
  };
}

async function json(program, ...args) {
  return JSON.parse((await run(program, args)).stdout);
}

function fileOf(name) {
  return new URL(name, import.meta.url).pathname;
}

function print() {
  const machine = `${cpus().length} x ${cpus()[0]?.model.trim()}, Linux ${release()}`;
  console.log(`Node ${process.version}, ${machine}; medians of ${ROUNDS} runs, with their range:\n`);
  console.log('| Records of 100 B, a second | Native | Node | Chromium | Chromium / native |\n|---|---|---|---|---|');
  for (const name of Object.keys(rounds[0])) {
    const cells = [0, 1, 2].map((at) => spread(rounds.map((round) => round[name][at])));
    const ratio = median(rounds.map((round) => round[name][2] / round[name][0]));
    console.log(`| ${name} | ${cells.join(' | ')} | ${ratio.toFixed(2)} |`);
  }
}

function spread(values) {
  const [middle, least, most] = [median(values), Math.min(...values), Math.max(...values)].map(short);
  const [unit] = /[Mk]?$/.exec(most);
  return `${middle} (${unit && least.endsWith(unit) ? least.slice(0, -2) : least} to ${most})`;
}

function median(values) {
  return [...values].sort((a, b) => a - b)[values.length >> 1];
}

function short(value) {
  if (value >= 1e6) return `${(value / 1e6).toPrecision(3)} M`;
  return value >= 1e3 ? `${Math.round(value / 1e3)} k` : value.toPrecision(3);
}
