import { promisify } from "node:util";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { brotliCompress, constants, gzip } from "node:zlib";

import { defineConfig, type Plugin } from "vite";

/** What is worth compressing; the rest is compressed already. */
const COMPRESSIBLE = /\.(html|js|css|svg|wasm)$/;

/** Puts `NAME.br` and `NAME.gz` beside every file, for the server to hand out as they are. */
function precompress(): Plugin {
  let out = "";
  return {
    name: "precompress",
    apply: "build",
    configResolved(config) {
      out = join(config.root, config.build.outDir);
    },
    async closeBundle() {
      const names = await readdir(out, { recursive: true });
      await Promise.all(names.filter((name) => COMPRESSIBLE.test(name)).map((name) => compress(join(out, name))));
    },
  };
}

async function compress(path: string): Promise<void> {
  const content = await readFile(path);
  const quality = { [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY };
  await writeFile(`${path}.br`, await promisify(brotliCompress)(content, { params: quality }));
  await writeFile(`${path}.gz`, await promisify(gzip)(content, { level: 9 }));
}

/** The server that `npm run dev` talks to. */
const SERVER = process.env["COMLOG_SERVER"] ?? "http://127.0.0.1:50052";

export default defineConfig({
  plugins: [precompress()],
  build: {
    // What runs wasm with BigInt, `<dialog>` and module workers.
    target: ["chrome111", "firefox114", "safari16.4"],
    // Nothing inline: the policy of the page allows only files of its origin.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  worker: { format: "es" },
  server: {
    proxy: Object.fromEntries(
      ["/comlog.v1", "/version", "/healthz", "/metrics", "/status"].map((path) => [path, SERVER]),
    ),
  },
});
