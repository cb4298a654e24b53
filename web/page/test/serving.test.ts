/** How the binary hands out the page. */
import assert from "node:assert/strict";
import { get, type IncomingHttpHeaders } from "node:http";
import { test } from "node:test";
import { brotliDecompressSync, gunzipSync } from "node:zlib";

import { startServer } from "./support.js";

const server = await startServer();

interface Answer {
  status: number | undefined;
  headers: IncomingHttpHeaders;
  body: Buffer;
}

/** Without what `fetch` does by itself. */
function ask(path: string, headers: Record<string, string> = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    get(server.url + path, { headers }, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("end", () =>
        resolve({ status: response.statusCode, headers: response.headers, body: Buffer.concat(chunks) }),
      );
    }).on("error", reject);
  });
}

test("the page allows files of its own origin only, and nothing inline", async () => {
  const { headers, body } = await ask("/");
  const policy = String(headers["content-security-policy"]);
  assert.match(policy, /^default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self';/);
  assert.doesNotMatch(policy, /unsafe-inline|unsafe-eval'?;.*'unsafe-eval'|\*|https?:/);
  assert.equal(headers["x-content-type-options"], "nosniff");
  assert.doesNotMatch(body.toString(), /https?:\/\/|<script>|style=/);
});

test("files come in the encoding asked for, the same in each", async () => {
  const plain = await ask("/");
  assert.equal(plain.headers["content-encoding"], undefined);
  const brotli = await ask("/", { "accept-encoding": "gzip, br" });
  assert.equal(brotli.headers["content-encoding"], "br");
  assert.deepEqual(brotliDecompressSync(brotli.body), plain.body);
  const gzip = await ask("/", { "accept-encoding": "gzip" });
  assert.equal(gzip.headers["content-encoding"], "gzip");
  assert.deepEqual(gunzipSync(gzip.body), plain.body);
  assert.match(plain.headers.vary ?? "", /accept-encoding/);
});

test("what has a hash in its name is kept for ever, the page itself is asked for again", async () => {
  const page = await ask("/");
  assert.equal(page.headers["cache-control"], "no-cache");
  const again = await ask("/", { "if-none-match": page.headers.etag ?? "" });
  assert.equal(again.status, 304);
  assert.equal(again.body.length, 0);
  const script = /src="(\/assets\/[^"]+\.js)"/.exec(page.body.toString())?.[1];
  assert.ok(script);
  const { status, headers } = await ask(script);
  assert.equal(status, 200);
  assert.equal(headers["cache-control"], "public, max-age=31536000, immutable");
  assert.equal(headers["content-type"], "text/javascript; charset=utf-8");
  assert.equal((await ask("/assets/index-gone.js")).status, 404);
});
