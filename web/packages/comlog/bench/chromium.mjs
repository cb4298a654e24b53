/** A page in Chromium that runs `wire.mjs` with the client as a bundler makes it. */
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';

import { chromium } from 'playwright-core';
import { build } from 'vite';

const WORK = new URL('wire.mjs', import.meta.url);

/** Opens the page; `run(work)` measures in it, and its origin is to be allowed by the server. */
export async function openInChromium() {
  const [client, work] = await Promise.all([bundled(), readFile(WORK, 'utf8')]);
  const files = { '/': '<!doctype html>', '/client.js': client, '/wire.mjs': work };
  const http = createServer(({ url }, response) => {
    const type = url === '/' ? 'text/html' : 'text/javascript';
    response.writeHead(url in files ? 200 : 404, { 'content-type': type }).end(files[url]);
  });
  await new Promise((resolve) => http.listen(0, '127.0.0.1', resolve));
  const origin = `http://127.0.0.1:${http.address().port}`;
  const executablePath = process.env.COMLOG_CHROMIUM ?? '/usr/bin/chromium';
  const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] });
  const page = await browser.newPage();
  await page.goto(origin);
  return {
    origin,
    run: (options) => page.evaluate(inPage, options),
    async close() {
      await browser.close();
      http.close();
    },
  };
}

async function inPage(options) {
  const [client, { measureWire }] = await Promise.all([import('/client.js'), import('/wire.mjs')]);
  return measureWire(client, options);
}

async function bundled() {
  const input = new URL('../dist/index.js', import.meta.url).pathname;
  const rolldownOptions = { input, preserveEntrySignatures: 'strict' };
  const built = await build({ configFile: false, logLevel: 'error', build: { write: false, minify: true, rolldownOptions } });
  return [built].flat()[0].output[0].code;
}
