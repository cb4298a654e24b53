/** The suite of `comlog/log` in Chromium. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { chromium, type BrowserContext, type Page } from 'playwright-core';

import { archiveFiles } from './log/archive-files.js';
import { serveFiles, type Files } from './log/files.js';
import { serverSegment } from './log/server-segment.js';
import { suite, type Api } from './log/suite.js';

const ARGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

let files: Files;
let profile: string;
let browser: BrowserContext;
let page: Page;
before(async () => {
  files = await serveFiles(new Map([...(await serverSegment()), ...(await archiveFiles())]));
  profile = await mkdtemp(join(tmpdir(), 'comlog-log-'));
  const executablePath = process.env['COMLOG_CHROMIUM'] ?? '/usr/bin/chromium';
  browser = await chromium.launchPersistentContext(profile, { executablePath, args: ARGS });
  page = await browser.newPage();
  await page.goto(files.url);
});
after(async () => {
  await browser?.close();
  files.close();
  await rm(profile, { recursive: true });
});

for (const name of Object.keys(suite)) {
  test(`in Chromium: ${name}`, () => page.evaluate(run, [name, files.url] as const));
}

/** Runs inside the page. */
async function run([name, url]: readonly [string, string]): Promise<void> {
  const load = (path: string) => import(path) as Promise<never>;
  const api: Api = await load('/dist/log/index.js');
  await api.init();
  const tests: typeof suite = (await load('/build/test/log/suite.js') as { suite: typeof suite }).suite;
  await tests[name]!(api, url);
}
