/** The package as it would be published: what is in it, how large it is, and that its README is true. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';

import { build, type Rolldown } from 'vite';

import { serve, startChromium } from './browser.js';
import { Server } from './server.js';

const run = promisify(execFile);
const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const README = await readFile(join(ROOT, 'README.md'), 'utf8');
/** The server of the README. */
const URL_IN_README = 'http://127.0.0.1:50052';

/** Most bytes of the client, bundled and compressed. */
const CLIENT_BYTES_MAX = 47_000;

const folder = await mkdtemp(join(tmpdir(), 'comlog-package-'));
after(() => rm(folder, { recursive: true }));
const packed = await pack();

async function pack(): Promise<{ tarball: string; files: string[] }> {
  const args = ['pack', '--json', '--ignore-scripts', '--pack-destination', folder];
  const { stdout } = await run('npm', args, { cwd: ROOT });
  const [{ filename, files }] = JSON.parse(stdout) as [{ filename: string; files: { path: string }[] }];
  return { tarball: join(folder, filename), files: files.map(({ path }) => path) };
}

/** A new project in which the package is installed, with these files. */
async function project(name: string, files: Record<string, string>, ...also: string[]): Promise<string> {
  const root = join(folder, name);
  const manifest = JSON.stringify({ name, private: true, type: 'module' });
  for (const [path, content] of Object.entries({ 'package.json': manifest, ...files })) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), content);
  }
  await run('npm', ['install', '--prefer-offline', '--no-audit', '--no-fund', packed.tarball, ...also], { cwd: root });
  return root;
}

/** The block of code that the README says to put into this file, for the server at `url`. */
function fromReadme(file: string, url: string): string {
  const block = README.split(`into \`${file}\``)[1]?.match(/```\w+\n(.*?)```/s)?.[1];
  assert.ok(block !== undefined && block.includes(URL_IN_README), `the README has code for ${file}`);
  return block.replaceAll(URL_IN_README, url);
}

/** The README's example of the log; Node 20 has no `using`. */
function logExample(): string {
  const example = README.match(/```ts\n(import \{ MemoryLog[^`]*)```/)?.[1];
  assert.ok(example, 'the README has an example of the log');
  return example;
}

test('exactly what is wanted is packed', async () => {
  const sources = await readdir(join(ROOT, 'src'), { recursive: true });
  // Of what is generated from the protos, only the types lie there.
  const isModule = (path: string) => /(?<!\.d)\.ts$/.test(path) || path.startsWith('gen/') && path.endsWith('.ts');
  const modules = sources.filter(isModule).map((path) => path.replace(/(\.d)?\.ts$/, ''));
  const wanted = ['LICENSE-APACHE', 'LICENSE-MIT', 'README.md', 'package.json'];
  wanted.push(...modules.flatMap((path) => [`dist/${path}.js`, `dist/${path}.d.ts`]));
  wanted.push('dist/comlog.wasm');
  assert.deepEqual([...packed.files].sort(), wanted.sort());
});

test('the bundled client is small', async () => {
  const entry = join(folder, 'entry.js');
  await writeFile(entry, `export * from ${JSON.stringify(join(ROOT, 'dist/index.js'))};`);
  const { output } = (await build({
    configFile: false,
    logLevel: 'error',
    build: { write: false, minify: true, rolldownOptions: { input: entry, preserveEntrySignatures: 'strict' } },
  }).then((built) => (Array.isArray(built) ? built[0] : built))) as Rolldown.RolldownOutput;
  const bytes = output.map((file) => gzipSync(file.type === 'chunk' ? file.code : file.source, { level: 9 }).length);
  const total = bytes.reduce((sum, one) => sum + one);
  assert.ok(total > 10_000, 'it is all there');
  assert.ok(total <= CLIENT_BYTES_MAX, `${total} bytes`);
});

test('a Node project that follows the README', async () => {
  const server = await Server.start();
  try {
    // Importing must not touch what a server does not have, nor open anything.
    const imported = `
      for (const name of ['fetch', 'location', 'document', 'SharedWorker', 'addEventListener']) {
        Object.defineProperty(globalThis, name, { get() { throw new Error(name + ' was touched'); } });
      }
      for (const entry of ['comlog', 'comlog/shared', 'comlog/log', 'comlog/node']) await import(entry);`;
    const root = await project('in-node', {
      'hello.mjs': fromReadme('hello.mjs', server.url),
      'import.mjs': imported,
      'log.mjs': logExample().replaceAll('using ', 'const '),
    });
    await run('node', ['import.mjs'], { cwd: root });
    const { stdout } = await run('node', ['hello.mjs'], { cwd: root });
    assert.equal(stdout, '0n hello\n');
    const log = await run('node', ['log.mjs'], { cwd: root });
    assert.match(log.stdout, /^0n Uint8Array\(5\)[^]*\n0n\n1n\n$/);
  } finally {
    await server.stop();
  }
});

test('a Vite project that follows the README', async () => {
  const dist = join(folder, 'in-vite', 'dist');
  const origin = await serve(dist);
  const server = await Server.start('--cors-origin', origin);
  try {
    const options = { strict: true, noEmit: true, target: 'ES2022', lib: ['ES2022', 'DOM', 'DOM.Iterable'] };
    const resolving = (module: string, moduleResolution: string) =>
      JSON.stringify({ compilerOptions: { ...options, module, moduleResolution }, include: ['src'] });
    const root = await project(
      'in-vite',
      {
        'index.html': '<!doctype html><title>my page</title><body><script type="module" src="/src/main.ts"></script>',
        'src/main.ts': fromReadme('src/main.ts', server.url),
        // As it says: in a page from `comlog/log`. The bundler finds the module and compiles `using`.
        'log.html': '<!doctype html><title>my log</title><body><script type="module" src="/src/log.ts"></script>',
        'src/log.ts': `import { MemoryLog, Segment, init } from 'comlog/log';
          void (async () => {${logExample().replace(/^import.*$/m, '').replaceAll('console.log(', 'show(')}})();
          function show(...words: unknown[]) { document.body.append(words.join(' '), '; '); }`,
        'vite.config.js': `export default { build: { target: 'es2022', rolldownOptions: { input: ['index.html', 'log.html'] } } };`,
        'src/types.ts': ['comlog', 'comlog/shared', 'comlog/log', 'comlog/node']
          .map((entry, index) => `export * as entry${index} from '${entry}';`)
          .join('\n'),
        'tsconfig.json': resolving('ESNext', 'bundler'),
        'tsconfig.node.json': resolving('NodeNext', 'NodeNext'),
      },
      'vite@8.3.8',
      'typescript@7.0.2',
    );
    // Types resolve, as bundlers look for them and as Node does, and those of the package are sound.
    await run('npx', ['tsc', '-p', 'tsconfig.json'], { cwd: root });
    await run('npx', ['tsc', '-p', 'tsconfig.node.json'], { cwd: root });
    await run('npx', ['vite', 'build'], { cwd: root });
    const context = await startChromium();
    const page = await context.newPage();
    await page.goto(origin);
    const line = page.locator('li').first();
    await line.waitFor({ timeout: 30_000 });
    assert.equal(await line.textContent(), `0 hello from ${origin}/`);
    await page.goto(`${origin}/log.html`);
    await page.getByText('0; 1; ').waitFor({ timeout: 30_000 });
    assert.equal(await page.textContent('body'), '0 102,105,114,115,116; 1 115,101,99,111,110,100; 0; 1; ');
    await page.close();
  } finally {
    await server.stop();
  }
});
