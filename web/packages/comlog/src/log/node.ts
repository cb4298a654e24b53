/** `comlog/log` for Node: `init()` reads the WebAssembly from the disk. */
import { load, type WasmSource } from './instance.js';

export * from './index.js';

/**
 * Loads and compiles the WebAssembly, once, however often it is called.
 *
 * @param source default: `comlog.wasm` of this package
 * @throws ComlogError UNAVAILABLE; a later call tries again
 */
export function init(source?: WasmSource): Promise<void> {
  return load(async () => source ?? (await fromDisk()));
}

async function fromDisk(): Promise<BufferSource> {
  const { readFile } = await import('node:fs/promises');
  return readFile(new URL('../comlog.wasm', import.meta.url));
}
