import { readFile } from 'node:fs/promises';
import { crc32c } from '../../src/disk-io/crc32c.ts';
import type { Backend } from '../../src/kernels/backend.ts';
import { Embedding } from '../../src/model/embedding.ts';
import type { PackFolder } from '../../src/pack/pack-folder.ts';
import { PAGE_POSITIONS, paddedVocabulary, tileCount } from '../../src/pack/tile-shape.ts';

/** Logits of every token of one sequence, by running all tiles of a pack; [tokens][vocabulary]. */
export async function packLogits(
  pack: PackFolder,
  backend: Backend,
  ids: readonly number[],
): Promise<Float32Array[]> {
  const { shape, tiles } = pack.manifest;
  const file = new Uint8Array(await readFile(pack.tilesPath));
  const weights = backend.allocate(file.length);
  new Uint8Array(weights).set(file);
  const pages = Math.ceil(ids.length / PAGE_POSITIONS);
  const model = backend.openModel({
    shape,
    constants: pack.constants,
    weights,
    attentionTiles: shape.layers * tileCount(shape, 'attention'),
    kvPages: pages,
    maxTokens: ids.length,
    maxLogitRows: ids.length,
  });
  try {
    model.setBatch({
      positions: Int32Array.from(ids.keys()),
      sequences: new Int32Array(ids.length),
      pageTables: [Int32Array.from({ length: pages }, (_, page) => page)],
      logitRows: Int32Array.from(ids.keys()),
      lengths: new Int32Array(ids.length).fill(ids.length),
    });
    const readAt = async (offset: number, target: Uint8Array) =>
      target.set(file.subarray(offset, offset + target.length));
    const checks = await pack.embeddingChecks();
    const embedding = new Embedding({ manifest: pack.manifest, readAt, checks, crc32c, cacheBytes: 4096 });
    await embedding.embed(ids, model.pass.residual);
    let slot = 0;
    const placed = tiles.map(({ kind, index, offset }) => ({
      offset,
      slot: kind === 'attention' ? slot++ : kind === 'head' ? index * shape.tiling.headRows : 0,
    }));
    for (let layer = 0; layer < shape.layers; layer++)
      for (const half of ['attention', 'ffn'] as const) {
        const mine = placed.filter((_, i) => tiles[i]!.kind === half && tiles[i]!.layer === layer);
        await model.run([
          { op: 'begin', layer, half },
          { op: 'tiles', layer, half, tiles: mine },
          { op: 'end', layer, half },
        ]);
      }
    const head = placed.filter((_, i) => tiles[i]!.kind === 'head');
    await model.run([{ op: 'head-begin' }, { op: 'head-tiles', tiles: head }]);
    const row = paddedVocabulary(shape);
    return ids.map((_, i) => model.pass.logits.slice(i * row, i * row + shape.vocabulary));
  } finally {
    model.close();
    backend.release(weights);
  }
}
