import type { Half } from '../../kernels/backend.ts';
import type { ModelShape, TileKind } from '../../pack/manifest.ts';
import { layerTileCount, tilePanels, tilesPerExpert } from '../../pack/tile-shape.ts';

export type LayerTileKind = Exclude<TileKind, 'head'>;

/** Tiles that are rounded one after another, and whose hidden activations come from one input. */
export interface TileBatch {
  readonly kind: LayerTileKind;
  /** Places among the tiles of this kind in the layer. */
  readonly tiles: readonly number[];
  /** Which of them have their last panels rounded together, the errors of one made up by others; places in `tiles`. */
  readonly spans: readonly (readonly number[])[];
}

/** Most columns of panels that are rounded together: their products take 8 bytes times its square. */
const MOST_COLUMNS = 4096;

/** Columns of the last panel of a tile as they are stored. */
export const outputColumns = (s: ModelShape, kind: LayerTileKind): number =>
  tilePanels(s, kind).at(-1)!.paddedColumns;

/**
 * A half layer in batches: all attention tiles (where all heads are normed as one they need each other), FFN tiles of up
 * to MOST_COLUMNS, then the tiles of each expert.
 */
export function tileBatches(s: ModelShape, layer: number, half: Half): TileBatch[] {
  const batches: TileBatch[] = [];
  const add = (kind: LayerTileKind, tiles: number[]) => {
    if (tiles.length === 0) return;
    const spans = chunks([...tiles.keys()], Math.max(1, Math.floor(MOST_COLUMNS / outputColumns(s, kind))));
    batches.push({ kind, tiles, spans });
  };
  const count = (kind: LayerTileKind) => [...Array(layerTileCount(s, kind, layer)).keys()];
  if (half === 'attention') {
    add('attention', count('attention'));
    return batches;
  }
  const together = Math.max(1, Math.floor(MOST_COLUMNS / outputColumns(s, 'ffn')));
  for (const tiles of chunks(count('ffn'), together)) add('ffn', tiles);
  for (const tiles of chunks(count('expert'), Math.max(1, tilesPerExpert(s)))) add('expert', tiles);
  return batches;
}

function chunks<T>(all: readonly T[], size: number): T[][] {
  const parts: T[][] = [];
  for (let first = 0; first < all.length; first += size) parts.push(all.slice(first, first + size));
  return parts;
}

/** The shape of the tiles that weights are taken from: the same cut, as they are in the checkpoint. */
export const sourceShape = (s: ModelShape): ModelShape => ({
  ...s,
  weights: 'bf16',
  hadamard: 0,
  kvBits: 32,
});
