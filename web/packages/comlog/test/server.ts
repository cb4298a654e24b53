/** The real server binary, on a free port of the loopback. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

/** A server with a data directory of its own; ends with `stop`. */
export class Server {
  /** `http://127.0.0.1:PORT`. */
  readonly url: string;
  readonly #folder: string;
  readonly #args: readonly string[];
  #process: ChildProcess;

  private constructor(folder: string, url: string, child: ChildProcess, args: readonly string[]) {
    this.#folder = folder;
    this.url = url;
    this.#process = child;
    this.#args = args;
  }

  /** Starts one on a free port; `args` go to `comlog serve`. */
  static async start(...args: string[]): Promise<Server> {
    const folder = await mkdtemp(join(tmpdir(), 'comlog-web-'));
    try {
      const { child, url } = await launch(folder, '127.0.0.1:0', args);
      return new Server(folder, url, child, args);
    } catch (error) {
      await rm(folder, { recursive: true });
      throw error;
    }
  }

  /** SIGKILL: no goodbye. */
  async kill(): Promise<void> {
    this.#process.kill('SIGKILL');
    await exited(this.#process);
  }

  /** Where its data is. */
  get data(): string {
    return join(this.#folder, 'data');
  }

  /** A new process on the same data and port. */
  async restart(): Promise<void> {
    const { child } = await launch(this.#folder, new URL(this.url).host, this.#args);
    this.#process = child;
  }

  async stop(): Promise<void> {
    await this.kill();
    await rm(this.#folder, { recursive: true });
  }
}

async function launch(folder: string, listen: string, args: readonly string[]) {
  const binary = process.env['COMLOG_BIN'];
  if (binary === undefined) throw new Error('COMLOG_BIN names no server to test against');
  const all = ['serve', '--listen', listen, '--data-dir', join(folder, 'data'), ...args];
  const child = spawn(binary, all, { stdio: ['ignore', 'pipe', 'ignore'] });
  child.on('error', (error) => {
    throw error;
  });
  for await (const line of createInterface({ input: child.stdout })) {
    const url = /https?:\/\/\S+/.exec(line)?.[0];
    if (url !== undefined) {
      // What it says from now on is not read, and must not stop it.
      child.stdout.resume();
      return { child, url };
    }
  }
  throw new Error(`comlog serve ended with ${child.exitCode} before it was ready`);
}

async function exited(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
}
