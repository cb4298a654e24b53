/** What the real server archived of a topic, and the same with manifests that are not as they should be. */
import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';

import { archivedTopic } from '../archived.js';

/** The log start offset of `trimmed`: inside the first segment. */
export const TRIMMED_START = 1234;

/**
 * Files by their paths: below `/archive/NAME/` the objects of one partition, with the manifest as it was
 * written (`whole`) and changed (`trimmed`, `short`, `damaged`, `newer`, `overlapping`); and
 * `/archive.json`, what the command line reads of the topic.
 */
export async function archiveFiles(): Promise<Map<string, Uint8Array>> {
  const archived = await archivedTopic();
  try {
    const folder = join(archived.folder, archived.partition);
    const names = await readdir(folder);
    const objects = await Promise.all(names.map(async (name) => [name, await readFile(join(folder, name))] as const));
    const files = new Map<string, Uint8Array>([['/archive.json', Buffer.from(JSON.stringify(archived.records))]]);
    for (const variant of ['whole', ...Object.keys(CHANGES)]) {
      for (const [name, content] of objects) {
        const change = name === 'manifest' ? CHANGES[variant] : undefined;
        files.set(`/archive/${variant}/${name}`, change ? change(content.toString()) : content);
      }
    }
    return files;
  } finally {
    await archived.remove();
  }
}

interface Members {
  log_start_offset: number;
  segments: { base_offset: number; len: number }[];
}

const CHANGES: Record<string, (manifest: string) => Uint8Array> = {
  trimmed: changed((members) => (members.log_start_offset = TRIMMED_START)),
  short: changed((members) => members.segments[0]!.len++),
  overlapping: changed((members) => members.segments[1]!.base_offset--),
  damaged: (manifest) => Buffer.from(manifest.replace('"segments"', '"segmentz"')),
  newer: (manifest) => Buffer.from(manifest.replace('manifest 1 ', 'manifest 2 ')),
};

/** A change of the members, behind the checksum that belongs to it. */
function changed(change: (members: Members) => void): (manifest: string) => Uint8Array {
  return (manifest) => {
    const members = JSON.parse(manifest.slice(manifest.indexOf('\n') + 1)) as Members;
    change(members);
    const json = Buffer.from(JSON.stringify(members));
    return Buffer.concat([Buffer.from(`comlog manifest 1 ${crc32c(json).toString(16).padStart(8, '0')}\n`), json]);
  };
}

function crc32c(bytes: Uint8Array): number {
  const table = Array.from({ length: 256 }, (_, byte) => {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc % 2 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
    return crc;
  });
  return ~bytes.reduce((crc, byte) => (crc >>> 8) ^ table[(crc ^ byte) & 255]!, -1) >>> 0;
}
