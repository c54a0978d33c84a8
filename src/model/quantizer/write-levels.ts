import type { Manifest, ModelShape } from '../../pack/manifest.ts';
import type { PackWriter } from '../../pack/pack-writer.ts';
import { constantPlace } from '../../pack/tile-shape.ts';
import {
  type ActivationLevels,
  allBlocks,
  chooseLevels,
  headBlocks,
  type LevelBlock,
  layerBlocks,
  shareInA4,
} from './level-blocks.ts';
import { vectorOf } from './round-tile.ts';

type Tile = Pick<Manifest['tiles'][number], 'kind' | 'layer' | 'index'>;

/** Writes the levels that `damage` (in the order of allBlocks) leads to into constants and tiles; the share in 4 bits. */
export async function writeLevels(
  s: ModelShape,
  constants: ArrayBuffer,
  writer: PackWriter,
  damage: readonly number[],
  levels: ActivationLevels,
): Promise<number> {
  const blocks = allBlocks(s);
  const inA4 = chooseLevels(blocks, damage, levels);
  setConstantLevels(s, constants, blocks, inA4);
  const ofTiles = new TileBlocks(blocks);
  for (const [tile, entry] of writer.tiles.entries()) {
    if (!ofTiles.of(entry).some(i => inA4[i])) continue;
    const bytes = new Uint8Array(entry.bytes);
    await writer.readTile(tile, bytes);
    setTileLevels(s, bytes, entry, ofTiles, inA4);
    await writer.replaceTile(tile, bytes);
  }
  return shareInA4(blocks, inA4);
}

/** Sets the levels that are kept among the constants. */
export function setConstantLevels(
  s: ModelShape,
  constants: ArrayBuffer,
  blocks: readonly LevelBlock[],
  inA4: readonly boolean[],
): void {
  const floats = new Float32Array(constants);
  for (const [i, { constant, layer, block }] of blocks.entries())
    if (constant) floats[constantPlace(s, constant, Math.max(0, layer)).first + block] = inA4[i] ? 1 : 0;
}

/** Sets the levels that are kept in a tile. */
export function setTileLevels(
  s: ModelShape,
  bytes: Uint8Array,
  entry: Tile,
  ofTiles: TileBlocks,
  inA4: readonly boolean[],
): void {
  for (const i of ofTiles.of(entry)) {
    const { tile, block } = ofTiles.blocks[i]!;
    vectorOf(s, tile!.kind, tile!.vector, bytes)[block] = inA4[i] ? 1 : 0;
  }
}

/** The levels that a pack has, in the order of allBlocks. readTile: the bytes of a tile. */
export async function readLevels(
  s: ModelShape,
  constants: ArrayBuffer,
  readTile: (tile: Tile) => Promise<Uint8Array>,
): Promise<boolean[]> {
  const floats = new Float32Array(constants);
  const inA4: boolean[] = [];
  const ofConstant = ({ constant, layer, block }: LevelBlock) =>
    floats[constantPlace(s, constant!, Math.max(0, layer)).first + block] === 1;
  for (let layer = 0; layer < s.layers; layer++) {
    let bytes: Uint8Array | undefined;
    let of: string | undefined;
    for (const block of layerBlocks(s, layer)) {
      if (!block.tile) {
        inA4.push(ofConstant(block));
        continue;
      }
      const { kind, index, vector } = block.tile;
      if (of !== `${kind} ${index}`) bytes = await readTile({ kind, layer, index });
      of = `${kind} ${index}`;
      inA4.push(vectorOf(s, kind, vector, bytes!)[block.block] === 1);
    }
  }
  return [...inA4, ...headBlocks(s).map(ofConstant)];
}

/** Which blocks have their levels in which tile. */
export class TileBlocks {
  readonly blocks: readonly LevelBlock[];
  /** Places among the blocks, by tile. */
  readonly #ofTile = new Map<string, number[]>();

  constructor(blocks: readonly LevelBlock[]) {
    this.blocks = blocks;
    for (const [i, { tile, layer }] of blocks.entries()) {
      if (!tile) continue;
      const key = `${tile.kind} ${layer} ${tile.index}`;
      const known = this.#ofTile.get(key);
      if (known) known.push(i);
      else this.#ofTile.set(key, [i]);
    }
  }

  of({ kind, layer, index }: Tile): readonly number[] {
    return this.#ofTile.get(`${kind} ${layer} ${index}`) ?? [];
  }
}
