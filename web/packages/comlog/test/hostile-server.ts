/** A server that answers as a test says: nonsense, late, or never. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server as HttpServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** Fields of a message by their numbers: integers, texts, bytes and messages. */
export type Fields = [number, bigint | number | string | Uint8Array | Fields | readonly Fields[]][];

/** What a method answers with; `undefined` for ever nothing. */
export type Answer = Fields | readonly Fields[] | Uint8Array | undefined;

/** Speaks gRPC-web; methods that nobody defined are never answered. */
export class HostileServer {
  readonly url: string;
  /** How often each method was called. */
  readonly calls = new Map<string, number>();
  readonly #server: HttpServer;

  private constructor(server: HttpServer) {
    this.#server = server;
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  static async start(answers: Record<string, (call: number) => Answer> = {}): Promise<HostileServer> {
    const server = createServer((request, response) => void started.#answer(request, response, answers));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const started: HostileServer = new HostileServer(server);
    return started;
  }

  stop(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }

  async #answer(
    request: IncomingMessage,
    response: ServerResponse,
    answers: Record<string, (call: number) => Answer>,
  ): Promise<void> {
    for await (const _ of request);
    const method = request.url?.split('/').pop() ?? '';
    const call = this.calls.get(method) ?? 0;
    this.calls.set(method, call + 1);
    const answer = answers[method]?.(call);
    if (answer === undefined) return;
    response.writeHead(200, { 'content-type': 'application/grpc-web+proto' });
    const isMany = Array.isArray(answer) && Array.isArray(answer[0]?.[0]);
    for (const one of isMany ? (answer as unknown as readonly Fields[]) : [answer as Fields | Uint8Array]) {
      response.write(framed(0, one instanceof Uint8Array ? one : encode(one)));
    }
    // A stream stays open.
    if (method !== 'Tail') response.end(framed(0x80, new TextEncoder().encode('grpc-status: 0\r\n')));
  }
}

function framed(flags: number, body: Uint8Array): Uint8Array {
  const head = Buffer.alloc(5);
  head.writeUInt8(flags);
  head.writeUInt32BE(body.length, 1);
  return Buffer.concat([head, body]);
}

/** Bytes of a message. */
export function encode(fields: Fields): Uint8Array {
  const parts: Uint8Array[] = [];
  for (const [field, value] of fields) {
    if (typeof value === 'bigint' || typeof value === 'number') {
      parts.push(varint(BigInt(field) << 3n), varint(BigInt.asUintN(64, BigInt(value))));
      continue;
    }
    let bytes: Uint8Array;
    if (typeof value === 'string') bytes = new TextEncoder().encode(value);
    else if (value instanceof Uint8Array) bytes = value;
    else bytes = encode(value as Fields);
    parts.push(varint((BigInt(field) << 3n) | 2n), varint(BigInt(bytes.length)), bytes);
  }
  return Buffer.concat(parts);
}

function varint(value: bigint): Uint8Array {
  const bytes: number[] = [];
  for (; value > 127n; value >>= 7n) bytes.push(Number(value & 127n) | 128);
  bytes.push(Number(value));
  return Uint8Array.from(bytes);
}
