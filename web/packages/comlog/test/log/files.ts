/**
 * A web server on the loopback: files of this package, one that is uploaded, those of a segment, and
 * those of an archive, which pages of other origins may read.
 */
import { readFile } from 'node:fs/promises';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname } from 'node:path';

const TYPES: Record<string, string> = {
  '.js': 'text/javascript',
  '.wasm': 'application/wasm',
  '.html': 'text/html',
};
const PACKAGE = new URL('../../../', import.meta.url);

export interface Files {
  readonly url: string;
  close(): void;
}

/**
 * Starts one on a free port; it answers range requests.
 *
 * @param made files by their paths
 */
export async function serveFiles(made: ReadonlyMap<string, Uint8Array> = new Map()): Promise<Files> {
  let uploaded: Uint8Array | undefined;
  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url!, 'http://localhost');
    if (pathname.startsWith('/archive/')) allow(response);
    if (request.method === 'OPTIONS') {
      response.writeHead(204).end();
    } else if (request.method === 'PUT') {
      const parts: Uint8Array[] = [];
      for await (const part of request) parts.push(part as Uint8Array);
      uploaded = Buffer.concat(parts);
      response.end();
    } else if (pathname === '/') {
      send(response, Buffer.from('<!doctype html><title>comlog/log</title>'), '.html');
    } else if (pathname === '/upload' && uploaded) {
      sendRange(response, uploaded, request.headers.range);
    } else if (made.has(pathname)) {
      sendRange(response, made.get(pathname)!, request.headers.range);
    } else {
      const file = await readFile(new URL(`.${pathname}`, PACKAGE)).catch(() => undefined);
      if (file) send(response, file, extname(pathname));
      else response.writeHead(404).end();
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const close = () => {
    server.close();
    server.closeAllConnections();
  };
  return { url: `http://127.0.0.1:${port}`, close };
}

/** What an object store is told to say for pages of any origin. */
function allow(response: ServerResponse): void {
  response.setHeader('access-control-allow-origin', '*');
  response.setHeader('access-control-allow-headers', 'range');
  response.setHeader('access-control-expose-headers', 'content-range');
}

function send(response: ServerResponse, body: Uint8Array, type: string): void {
  response.writeHead(200, { 'content-type': TYPES[type] ?? 'application/octet-stream' }).end(body);
}

function sendRange(response: ServerResponse, body: Uint8Array, range: string | undefined): void {
  const found = /^bytes=(\d+)-(\d+)$/.exec(range ?? '');
  if (!found) {
    send(response, body, '');
    return;
  }
  if (Number(found[1]) >= body.length) {
    response.writeHead(416, { 'content-range': `bytes */${body.length}` }).end();
    return;
  }
  const [start, end] = [Number(found[1]), Math.min(Number(found[2]) + 1, body.length)];
  const headers = { 'content-range': `bytes ${start}-${end - 1}/${body.length}` };
  response.writeHead(206, headers).end(body.subarray(start, end));
}
