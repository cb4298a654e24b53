/** The fixture, built by Vite, in real Chromium. */
import { createReadStream } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { extname, join } from 'node:path';
import { after } from 'node:test';
import { fileURLToPath } from 'node:url';

import { chromium, type BrowserContext, type Page } from 'playwright-core';
import { build } from 'vite';

import type { Server } from './server.js';

const FIXTURE = fileURLToPath(new URL('../../test/fixture', import.meta.url));
const ARGUMENTS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];
const TYPES: Record<string, string> = { '.html': 'text/html', '.js': 'text/javascript' };

/** A browser, and the fixture at an origin of its own. */
export interface Browser {
  /** Where the fixture is. */
  origin: string;
  context: BrowserContext;
  /** Opens the fixture, whose client calls `server`. */
  open(server: Server, options?: { shared?: boolean }): Promise<Page>;
}

/** Builds and serves the fixture and starts Chromium, for the tests of one file. */
export async function startBrowser(): Promise<Browser> {
  const folder = await mkdtemp(join(tmpdir(), 'comlog-page-'));
  after(() => rm(folder, { recursive: true }));
  await build({ root: FIXTURE, base: './', logLevel: 'error', configFile: false, build: { outDir: folder, emptyOutDir: true } });
  const origin = await serve(folder);
  const context = await startChromium();
  const open: Browser['open'] = async (server, { shared = false } = {}) => {
    const page = await context.newPage();
    page.setDefaultTimeout(30_000);
    await page.goto(`${origin}/?server=${server.url}${shared ? '&shared' : ''}`);
    await page.waitForFunction('globalThis.client !== undefined');
    return page;
  };
  return { origin, context, open };
}

/** Starts Chromium with a fresh profile, for the tests of one file. */
export async function startChromium(): Promise<BrowserContext> {
  const profile = await mkdtemp(join(tmpdir(), 'comlog-chromium-'));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: '/usr/bin/chromium',
    headless: true,
    args: ARGUMENTS,
  });
  after(async () => {
    await context.close();
    await rm(profile, { recursive: true });
  });
  return context;
}

/** Serves what is in a folder, for the tests of one file; says at which origin. */
export async function serve(folder: string): Promise<string> {
  const http = createServer((request, response) => {
    // The URL class has resolved every `..`.
    const path = new URL(request.url ?? '/', 'http://localhost').pathname.slice(1) || 'index.html';
    const file = createReadStream(join(folder, path));
    file.on('error', () => response.writeHead(404).end());
    file.on('open', () => {
      response.writeHead(200, { 'content-type': TYPES[extname(path)] ?? 'application/octet-stream' });
      file.pipe(response);
    });
  });
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve));
  after(() => {
    http.closeAllConnections();
    http.close();
  });
  return `http://127.0.0.1:${(http.address() as AddressInfo).port}`;
}
