import type { ModelShape } from '../../pack/manifest.ts';
import {
  type LayerConstant,
  LEVEL_CHANNELS,
  layerTileCount,
  type ModelConstant,
  type Panel,
  type TileVector,
  tileCount,
  tilePanels,
  tilesPerExpert,
} from '../../pack/tile-shape.ts';
import type { LayerTileKind } from './half-layer.ts';

/** A block of up to 128 input channels whose activations have one level: 4 bits or 8 (FMPQ, arXiv 2410.12168, section 3.2). */
export interface LevelBlock {
  /** Layer; -1: the head. */
  readonly layer: number;
  /** Where its level is kept: among the constants, or in a tile. */
  readonly constant: LayerConstant | ModelConstant | null;
  readonly tile: { readonly kind: LayerTileKind; readonly index: number; readonly vector: TileVector } | null;
  /** Place among the blocks of its input. */
  readonly block: number;
  /** Multiply-adds of a token, on average. */
  readonly multiplyAdds: number;
}

/** Activations of a pack: all in 8 bits, all in 4, or 4 where it does least damage. */
export type ActivationLevels = 'a8' | 'a4' | 'mixed';

/** The part of all multiply-adds that is in 4x4 bits where levels are mixed, at least. */
export const MIXED_SHARE = 0.8;

/** The blocks of a layer: the attention input, the output of each attention tile, the FFN input, the hidden activations of each tile. */
export function layerBlocks(s: ModelShape, layer: number): LevelBlock[] {
  const blocks: LevelBlock[] = [];
  const add = (part: Pick<LevelBlock, 'constant' | 'tile'>, columns: number, rows: number) => {
    for (let block = 0; block * LEVEL_CHANNELS < columns; block++) {
      const channels = Math.min(LEVEL_CHANNELS, columns - block * LEVEL_CHANNELS);
      blocks.push({ layer, ...part, block, multiplyAdds: channels * rows });
    }
  };
  const rows = (panels: readonly Panel[]) => panels.slice(0, -1).reduce((sum, panel) => sum + panel.rows, 0);
  const inputRows = (kind: LayerTileKind) =>
    rows(tilePanels(s, kind)) * layerTileCount(s, kind, layer) * runsOf(s, kind);
  const outputs = (kind: LayerTileKind, vector: TileVector) => {
    for (let index = 0; index < layerTileCount(s, kind, layer); index++)
      add(
        { constant: null, tile: { kind, index, vector } },
        tilePanels(s, kind).at(-1)!.columns,
        s.width * runsOf(s, kind),
      );
  };
  add({ constant: 'attentionInA4', tile: null }, s.width, inputRows('attention'));
  outputs('attention', 'outputA4');
  add({ constant: 'ffnInA4', tile: null }, s.width, inputRows('ffn') + inputRows('expert'));
  outputs('ffn', 'downA4');
  outputs('expert', 'downA4');
  return blocks;
}

/** The blocks of the head's input. */
export function headBlocks(s: ModelShape): LevelBlock[] {
  const rows = tileCount(s, 'head') * s.tiling.headRows;
  return Array.from({ length: Math.ceil(s.width / LEVEL_CHANNELS) }, (_, block) => ({
    layer: -1,
    constant: 'headInA4',
    tile: null,
    block,
    multiplyAdds: Math.min(LEVEL_CHANNELS, s.width - block * LEVEL_CHANNELS) * rows,
  }));
}

/** All blocks, those of the layers first. */
export const allBlocks = (s: ModelShape): LevelBlock[] => [
  ...s.layerFeatures.flatMap((_, layer) => layerBlocks(s, layer)),
  ...headBlocks(s),
];

/**
 * For each block whether its activations are in 4 bits. mixed: blocks go to 8 bits by the damage that 4 bits do for each
 * multiply-add, most first, as long as MIXED_SHARE of all stay in 4 bits.
 */
export function chooseLevels(
  blocks: readonly LevelBlock[],
  damage: readonly number[],
  levels: ActivationLevels,
): boolean[] {
  const inA4 = blocks.map(() => levels !== 'a8');
  if (levels !== 'mixed') return inA4;
  const all = blocks.reduce((sum, block) => sum + block.multiplyAdds, 0);
  let left = all * (1 - MIXED_SHARE);
  const order = [...blocks.keys()].sort(
    (a, b) => damage[b]! / blocks[b]!.multiplyAdds - damage[a]! / blocks[a]!.multiplyAdds || a - b,
  );
  for (const i of order) {
    const { multiplyAdds } = blocks[i]!;
    if (multiplyAdds > left) continue;
    left -= multiplyAdds;
    inA4[i] = false;
  }
  return inA4;
}

/** The part of all multiply-adds whose activations are in 4 bits. */
export function shareInA4(blocks: readonly LevelBlock[], inA4: readonly boolean[]): number {
  let some = 0;
  let all = 0;
  for (const [i, { multiplyAdds }] of blocks.entries()) {
    all += multiplyAdds;
    if (inA4[i]) some += multiplyAdds;
  }
  return some / all;
}

/** The part of all tokens that go through a tile. */
const runsOf = (s: ModelShape, kind: LayerTileKind): number =>
  kind === 'expert' && tilesPerExpert(s) > 0 ? s.experts!.perToken / s.experts!.count : 1;
