import * as fileSystem from 'node:fs/promises';
import { join } from 'node:path';
import { crc32c } from '../../disk-io/crc32c.ts';
import { parseShapes } from '../../model/named-shapes.ts';
import { writeSyntheticPack } from '../../model/synthetic-pack.ts';
import type { Activations } from '../../model/synthetic-tiles.ts';
import type { ModelShape } from '../../pack/manifest.ts';
import { openPackFolder, type PackFolder } from '../../pack/pack-folder.ts';
import { kvPageBytes, PAGE_POSITIONS, tileCount } from '../../pack/tile-shape.ts';
import { promptOf } from './passes.ts';
import type { Lane } from './resident-model.ts';

/** Models that show one thing of a larger one: little but attention, or few layers. */

type Like = Pick<ModelShape, 'width' | 'queryHeads' | 'kvHeads' | 'headDim' | 'ffnWidth'>;

const ATTENTION_LAYERS = 64;
const VOCABULARY = 512;

/** Writes a pack with the heads of `like` and hardly any other weights into `folder`. */
export const writeAttentionPack = (
  like: Pick<Like, 'queryHeads' | 'kvHeads' | 'headDim'>,
  positions: number,
  folder: string,
): Promise<PackFolder> => {
  const shape = { ...like, width: 64, ffnWidth: 32 };
  return writePack('attention', shape, ATTENTION_LAYERS, positions, 'a8', folder);
};

/** Writes a pack with two layers of the size of `like` into `folder`, with 4-bit or 8-bit activations. */
export const writeLevelPack = (
  like: Like,
  positions: number,
  activations: Activations,
  folder: string,
): Promise<PackFolder> => writePack(`layers-${activations}`, like, 2, positions, activations, folder);

async function writePack(
  name: string,
  like: Like,
  layers: number,
  positions: number,
  activations: Activations,
  folder: string,
): Promise<PackFolder> {
  const columns = {
    name,
    model_type: 'llama',
    hidden_size: like.width,
    num_hidden_layers: layers,
    num_attention_heads: like.queryHeads,
    num_key_value_heads: like.kvHeads,
    head_dim: like.headDim,
    intermediate_size: like.ffnWidth,
    vocab_size: VOCABULARY,
    max_position_embeddings: positions,
  };
  const text = `${Object.keys(columns).join(' ')}\n${Object.values(columns).join(' ')}`;
  const target = join(folder, name);
  await writeSyntheticPack({
    shape: parseShapes(text, name)[0]!,
    seed: 1,
    storedLayers: layers,
    activations,
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
        length: PAGE_POSITIONS,
        start: 0,
        tokens: promptOf(PAGE_POSITIONS, page),
        logitsAt: [],
      })),
    );
}
