import * as fileSystem from 'node:fs/promises';
import { join } from 'node:path';
import { crc32c } from '../../disk-io/crc32c.ts';
import { writeSyntheticPack } from '../../model/synthetic-pack.ts';
import type { ModelShape } from '../../pack/manifest.ts';
import { openPackFolder, type PackFolder } from '../../pack/pack-folder.ts';
import { kvPageBytes, PAGE_POSITIONS, tileCount } from '../../pack/tile-shape.ts';
import { promptOf } from './passes.ts';
import type { Lane } from './resident-model.ts';

/** A model that is little but attention, to see how fast keys and values are read. */

const LAYERS = 64;

/** Writes a pack with the heads of `like` and hardly any other weights into `folder`. */
export async function writeAttentionPack(
  like: ModelShape,
  positions: number,
  folder: string,
): Promise<PackFolder> {
  const shape = { ...like, width: 64, layers: LAYERS, ffnWidth: 32, vocabulary: 512, context: positions };
  const target = join(folder, 'attention');
  await writeSyntheticPack({
    shape: { name: 'attention', config: { shape, tiedHead: true, stopTokens: [], beginToken: null } },
    seed: 1,
    storedLayers: LAYERS,
    target,
    fileSystem,
    crc32c,
  });
  return openPackFolder(fileSystem, target);
}

/** Bytes of keys and values that a token at the last of `positions` positions reads. */
export function keyValueBytes({ manifest: { shape } }: PackFolder, positions: number): number {
  const pageBytes = kvPageBytes(shape, shape.layers * tileCount(shape, 'attention'));
  return (positions / PAGE_POSITIONS) * pageBytes;
}

/** Fills all pages with keys and values: each page as a sequence of its own, which takes little attention. */
export async function fillPages({ runner }: Lane, pages: Int32Array): Promise<void> {
  const atOnce = Math.floor(runner.maxTokens / PAGE_POSITIONS);
  for (let first = 0; first < pages.length; first += atOnce)
    await runner.run(
      Array.from(pages.subarray(first, first + atOnce), page => ({
        pages: Int32Array.of(page),
        start: 0,
        tokens: promptOf(PAGE_POSITIONS, page),
        logitsAt: [],
      })),
    );
}
