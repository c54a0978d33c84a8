import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { crc32c } from '../../src/disk-io/crc32c.ts';
import type { TilePlace } from '../../src/disk-io/tile-source.ts';

/** A folder that is removed when the test ends. */
export async function temporaryFolder(under = tmpdir()): Promise<string> {
  const folder = await mkdtemp(join(under, 'potluck-disk-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** Bytes that differ from place to place and from seed to seed. */
export function patternBytes(length: number, seed: number): Uint8Array<ArrayBuffer> {
  const words = new Uint32Array(Math.ceil(length / 4));
  let state = (seed + 1) * 0x9e3779b1;
  for (let i = 0; i < words.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    words[i] = state ^ (state >>> 15);
  }
  return new Uint8Array(words.buffer, 0, length);
}

export interface TileOfFile extends TilePlace {
  readonly content: Uint8Array;
}

/** Writes tiles of these sizes (multiples of 4096) one after another. */
export async function writeTiles(path: string, sizes: readonly number[]): Promise<TileOfFile[]> {
  const contents = sizes.map((bytes, i) => patternBytes(bytes, i));
  await writeFile(path, Buffer.concat(contents));
  let offset = 0;
  return contents.map(content => {
    const place = { path, offset, bytes: content.length, crc32c: crc32c(content), content };
    offset += content.length;
    return place;
  });
}
