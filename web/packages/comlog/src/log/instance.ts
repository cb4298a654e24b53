/** The compiled module, and instances of it whose traps become errors. */

import { CODES, ComlogError, type Code } from '../error.js';
import { makeGlue } from './gen/glue.js';
import type { Glue, Wasm } from './glue.js';

/** Where the WebAssembly comes from: an address to fetch, a response, its bytes, or a compiled module. */
export type WasmSource =
  | string
  | URL
  | Request
  | Response
  | Promise<Response>
  | BufferSource
  | WebAssembly.Module;

let compiled: WebAssembly.Module | undefined;
let loading: Promise<void> | undefined;

/** Compiles the module, once; after a failure it can be tried again. */
export function load(source: () => WasmSource | Promise<WasmSource>): Promise<void> {
  loading ??= (async () => {
    try {
      compiled = await compile(await source());
    } catch (error) {
      loading = undefined;
      throw new ComlogError('UNAVAILABLE', `the WebAssembly of comlog/log cannot be loaded: ${String(error)}`, {
        cause: error,
      });
    }
  })();
  return loading;
}

async function compile(source: Awaited<WasmSource>): Promise<WebAssembly.Module> {
  if (source instanceof WebAssembly.Module) return source;
  if (typeof source === 'string' || source instanceof URL || isRequest(source)) {
    return compile(await fetch(source));
  }
  if (!isResponse(source)) return WebAssembly.compile(source);
  if (!source.ok) throw new Error(`${source.url} answers ${source.status}`);
  // Only what says that it is WebAssembly is compiled while it streams.
  const streams = source.headers.get('content-type')?.split(';')[0]?.trim() === 'application/wasm';
  return streams
    ? WebAssembly.compileStreaming(source)
    : WebAssembly.compile(await source.arrayBuffer());
}

function isRequest(source: unknown): source is Request {
  return typeof Request === 'function' && source instanceof Request;
}

function isResponse(source: unknown): source is Response {
  return typeof Response === 'function' && source instanceof Response;
}

function theModule(): WebAssembly.Module {
  if (compiled) return compiled;
  throw new ComlogError('FAILED_PRECONDITION', 'call and await init() of comlog/log first');
}

/**
 * One WebAssembly instance. A trap leaves its memory in an unknown state, so it ends the instance;
 * others go on.
 */
export class Instance {
  readonly #glue: Glue;
  readonly #wasm: Wasm;
  #ended: ComlogError | undefined;

  private constructor(glue: Glue, wasm: Wasm) {
    this.#glue = glue;
    this.#wasm = wasm;
  }

  static async open(): Promise<Instance> {
    const glue = makeGlue();
    return new Instance(glue, await glue({ module_or_path: theModule() }));
  }

  static openSync(): Instance {
    const glue = makeGlue();
    return new Instance(glue, glue.initSync({ module: theModule() }));
  }

  /** Why the instance takes no more calls. */
  get ended(): ComlogError | undefined {
    return this.#ended;
  }

  /** Bytes of memory that the instance has. */
  get memoryBytes(): number {
    return this.#wasm.memory.buffer.byteLength;
  }

  /** Calls into the instance; whatever goes wrong is a `ComlogError`. */
  call<T>(body: (glue: Glue) => T): T {
    if (this.#ended) throw this.#ended;
    try {
      return body(this.#glue);
    } catch (error) {
      throw told(error) ?? this.#end(error);
    }
  }

  #end(cause: unknown): ComlogError {
    let said = '';
    try {
      said = this.#glue.lastPanic();
    } catch {
      // The instance is beyond telling.
    }
    const message = `a defect in comlog/log: ${said || String(cause)}`;
    this.#ended = new ComlogError('INTERNAL', message, { reason: 'INTERNAL', cause });
    return this.#ended;
  }
}

/** The error that the instance gave on purpose; `undefined` for a trap. */
function told(error: unknown): ComlogError | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  const { code, message, reason, offset, nextOffset } = error as Error & Record<string, unknown>;
  if (!CODES.some((known) => known === code)) return undefined;
  return new ComlogError(code as Code, message, {
    reason: typeof reason === 'string' ? reason : undefined,
    offset: typeof offset === 'bigint' ? offset : undefined,
    nextOffset: typeof nextOffset === 'bigint' ? nextOffset : undefined,
  });
}
