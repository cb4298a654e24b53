/**
 * How fast the log in WebAssembly is: prints JSON.
 *
 *     node bench/log.mjs              in Node
 *     node bench/log.mjs --chromium   in Chromium (COMLOG_CHROMIUM, default /usr/bin/chromium)
 *
 * Beside it: cargo run --release -p comlog-wasm --example native
 */
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';

import * as api from 'comlog/node';

import { measure } from './work.mjs';

const result = process.argv.includes('--chromium') ? await inChromium() : await inNode();
console.log(JSON.stringify(result, undefined, 2));

async function inNode() {
  await api.init();
  return { runtime: `Node ${process.version}`, ...(await measure(api)) };
}

async function inChromium() {
  const { chromium } = await import('playwright-core');
  const server = createServer(answer);
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const executablePath = process.env.COMLOG_CHROMIUM ?? '/usr/bin/chromium';
  const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] });
  try {
    const page = await browser.newPage();
    await page.goto(`http://127.0.0.1:${server.address().port}/`);
    const measured = await page.evaluate(async () => {
      const [log, { measure }] = await Promise.all([import('/dist/log/index.js'), import('/bench/work.mjs')]);
      await log.init();
      return measure(log);
    });
    return { runtime: `Chromium ${browser.version()}`, ...measured };
  } finally {
    await browser.close();
    server.close();
  }
}

/** Files of this package, for the page. */
async function answer(request, response) {
  const { pathname } = new URL(request.url, 'http://localhost');
  const type = pathname === '/' ? 'text/html' : pathname.endsWith('.wasm') ? 'application/wasm' : 'text/javascript';
  const path = new URL(`..${pathname}`, import.meta.url);
  const body = pathname === '/' ? '<!doctype html>' : await readFile(path).catch(() => undefined);
  response.writeHead(body === undefined ? 404 : 200, { 'content-type': type }).end(body);
}
