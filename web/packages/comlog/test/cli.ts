/** The command line, on the other side of what is tested. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';

/** One line of `comlog consume -o json`, and of what the page exports. */
export interface Line {
  topic: string;
  partition: number;
  offset: number;
  timestamp_ms: number;
  key: string | null;
  value: string | null;
  headers: { name: string; value: string | null }[];
}

/** Runs `comlog` against a server, and gives what it wrote; fails when it does. */
export async function comlog(url: string, args: string[], input: string | Uint8Array = ''): Promise<string> {
  const binary = process.env['COMLOG_BIN'];
  if (binary === undefined) throw new Error('COMLOG_BIN names no comlog to test with');
  const env = { ...process.env, COMLOG_SERVER: url };
  const child = spawn(binary, args, { env, stdio: ['pipe', 'pipe', 'pipe'] });
  let out = '';
  let errors = '';
  child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (errors += chunk.toString()));
  // A command that reads nothing may have ended before.
  child.stdin.on('error', () => undefined);
  child.stdin.end(input);
  const code = await new Promise((resolve) => child.on('close', resolve));
  assert.equal(code, 0, `comlog ${args.join(' ')}: ${errors}`);
  return out;
}

/** What the command line reads of a topic. */
export async function consumed(url: string, topic: string): Promise<Line[]> {
  const text = await comlog(url, ['consume', topic, '-o', 'json']);
  return text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Line);
}
