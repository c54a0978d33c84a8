import type { ModelShape, TileKind } from './manifest.ts';

/**
 * Sizes and places of everything inside tiles.bin, computed from the shape alone. The native code has the same
 * arithmetic in src/kernels/native/tile_shape.h; a test compares the two.
 */

/** Bytes that every tile and blob is aligned to. */
export const ALIGNMENT = 4096;
/** Rows interleaved in one block of a panel: one vector lane is one row. */
export const BLOCK_ROWS = 16;
/** Input channels that share one weight scale and one activation scale. */
export const GROUP = 32;

/** Tile kinds of a layer, in execution order. */
export const LAYER_TILE_KINDS = ['attention', 'ffn', 'expert'] as const;
export const TILE_KINDS = [...LAYER_TILE_KINDS, 'head'] as const;
/** int32 of `partial` that hold a token's sums of squares of all queries and of all keys, three words each. */
export const SQUARE_WORDS = 6;

export const roundUp = (n: number, to: number): number => Math.ceil(n / to) * to;

/** One matrix inside a tile: `rows` output rows by `columns` input channels, at `offset` bytes from the tile's start. */
export interface Panel {
  readonly offset: number;
  readonly rows: number;
  /** Rows stored: a multiple of 16. */
  readonly paddedRows: number;
  readonly columns: number;
  /** Columns stored: a multiple of 32. */
  readonly paddedColumns: number;
  readonly bytes: number;
}

/** Bytes of a panel of `rows` x `columns`. w4: 4.5 bits a weight; bf16: 16. */
export function panelBytes(weights: ModelShape['weights'], rows: number, columns: number): number {
  const r = roundUp(rows, BLOCK_ROWS);
  const c = roundUp(columns, GROUP);
  return weights === 'w4' ? (r * c) / 2 + r * (c / GROUP) * 2 : r * c * 2;
}

/** Query heads of one attention tile. */
export const tileQueryHeads = (s: ModelShape): number => s.queryHeads / s.kvHeads / s.tiling.partsPerKvHead;

const ffnTiles = (s: ModelShape, columns: number): number => Math.ceil(columns / s.tiling.ffnColumns);

/** Expert tiles of one expert. */
export const tilesPerExpert = (s: ModelShape): number => ffnTiles(s, s.experts?.width ?? 0);

/** Tiles of a kind in layer `layer` (or in the head). */
export function layerTileCount(s: ModelShape, kind: TileKind, layer: number): number {
  const experts = s.layerFeatures[layer]!.experts ? s.experts : null;
  if (kind === 'attention') return s.kvHeads * s.tiling.partsPerKvHead;
  if (kind === 'ffn') return ffnTiles(s, experts ? experts.sharedWidth : s.ffnWidth);
  if (kind === 'expert') return experts ? experts.count * tilesPerExpert(s) : 0;
  return Math.ceil(s.vocabulary / s.tiling.headRows);
}

/** Most tiles of a kind in any one layer (or in the head). */
export function tileCount(s: ModelShape, kind: TileKind): number {
  const counts = s.layerFeatures.map((_, layer) => layerTileCount(s, kind, layer));
  return counts.reduce((most, count) => Math.max(most, count), 0);
}

function place(s: ModelShape, sizes: readonly (readonly [rows: number, columns: number])[]): Panel[] {
  let offset = 0;
  return sizes.map(([rows, columns]) => {
    const bytes = panelBytes(s.weights, rows, columns);
    const panel: Panel = {
      offset,
      rows,
      paddedRows: roundUp(rows, BLOCK_ROWS),
      columns,
      paddedColumns: roundUp(columns, GROUP),
      bytes,
    };
    offset = roundUp(offset + bytes, 64);
    return panel;
  });
}

/**
 * The panels of a tile, in storage order.
 * attention: Q [tileQueryHeads*headDim, width], K [headDim, width], V [headDim, width], O [width, tileQueryHeads*headDim]
 * ffn: gate and up interleaved by blocks of 16 rows [2*ffnColumns, width], down [width, ffnColumns]
 * expert: as ffn
 * head: [headRows, width]
 */
export function tilePanels(s: ModelShape, kind: TileKind): Panel[] {
  if (kind === 'attention') {
    const q = tileQueryHeads(s) * s.headDim;
    return place(s, [
      [q, s.width],
      [s.headDim, s.width],
      [s.headDim, s.width],
      [s.width, q],
    ]);
  }
  if (kind !== 'head') {
    return place(s, [
      [2 * s.tiling.ffnColumns, s.width],
      [s.width, s.tiling.ffnColumns],
    ]);
  }
  return place(s, [[s.tiling.headRows, s.width]]);
}

/** Channels of an input whose activations share a level. */
export const LEVEL_CHANNELS = 128;

/** Blocks of `columns` input channels that have a level each; bf16 panels have none. */
const levelBlocks = (s: ModelShape, columns: number): number =>
  s.weights === 'w4' ? Math.ceil(columns / LEVEL_CHANNELS) : 0;

/** Whether values come rotated out of their panel, and so fit the rotated columns of the output panel. */
export const rotatedValues = (s: ModelShape): boolean => s.hadamard !== 0 && s.headDim % s.hadamard === 0;

type Entries = readonly (readonly [name: string, floats: number])[];

/**
 * Vectors of a tile with their float32 counts, in storage order, behind its panels. Biases are of the rows of the panels;
 * norm weights are of one head, which all heads share, or of all heads of the tile. `keyMean` is taken off every key before
 * it is stored in few bits: a constant in all scores changes no attention. `...A4`: see layerConstants.
 */
function tileVectors(s: ModelShape, kind: TileKind) {
  const bias = kind === 'attention' && s.biases.queryKeyValue;
  const norm = kind === 'attention' ? s.norms.queryKey : 'none';
  const query = tileQueryHeads(s) * s.headDim;
  return [
    ['queryBias', bias ? query : 0],
    ['keyBias', bias ? s.headDim : 0],
    ['valueBias', bias ? s.headDim : 0],
    ['queryNorm', norm === 'none' ? 0 : norm === 'head' ? s.headDim : query],
    ['keyNorm', norm === 'none' ? 0 : s.headDim],
    ['gateUpBias', kind === 'ffn' && s.biases.gateUp ? 2 * s.tiling.ffnColumns : 0],
    ['keyMean', kind === 'attention' && s.kvBits <= 8 ? s.headDim : 0],
    ['outputA4', kind === 'attention' ? levelBlocks(s, query) : 0],
    ['downA4', kind === 'ffn' || kind === 'expert' ? levelBlocks(s, s.tiling.ffnColumns) : 0],
  ] as const satisfies Entries;
}

export type TileVector = ReturnType<typeof tileVectors>[number][0];

/** Where the vectors of a tile begin, and where each lies: bytes from the tile's start, and floats. */
export function vectorPlaces(
  s: ModelShape,
  kind: TileKind,
): { end: number; places: { name: TileVector; offset: number; floats: number }[] } {
  const last = tilePanels(s, kind).at(-1)!;
  let end = roundUp(last.offset + last.bytes, 64);
  const places = tileVectors(s, kind).map(([name, floats]) => {
    const offset = end;
    end += floats * 4;
    return { name, offset, floats };
  });
  return { end, places };
}

/** Bytes of a tile, padded to ALIGNMENT. Every tile of a kind has the same size; what the matrix lacks is zero. */
export const tileBytes = (s: ModelShape, kind: TileKind): number =>
  roundUp(vectorPlaces(s, kind).end, ALIGNMENT);

/** Vocabulary rounded up to whole head tiles: the row length of the logits buffer. */
export const paddedVocabulary = (s: ModelShape): number =>
  Math.ceil(s.vocabulary / s.tiling.headRows) * s.tiling.headRows;

/** Floats that hold the router: a bf16 panel [experts, width]. */
const routerFloats = (s: ModelShape): number =>
  s.experts ? panelBytes('bf16', s.experts.count, s.width) / 4 : 0;

/**
 * The constants of one layer with their float32 counts, in storage order. A scale is the power of two that turns a channel
 * of a tile's output into fixed point. Biases of matrices that are cut by columns are here and not in tiles, as they are
 * added once; the router's scores come behind the FFN norm. `...A4` has 1 for each block of 128 input channels
 * whose activations are quantized to 4 bits, 0 for 8 (COMET's FMPQ, arXiv 2410.12168).
 */
const layerConstants = (s: ModelShape) =>
  [
    ['attentionNorm', s.norms.input ? s.width : 0],
    ['ffnNorm', s.norms.input ? s.width : 0],
    ['attentionScale', s.width],
    ['ffnScale', s.width],
    ['attentionOutputNorm', s.norms.output ? s.width : 0],
    ['ffnOutputNorm', s.norms.output ? s.width : 0],
    ['outputBias', s.biases.output ? s.width : 0],
    ['downBias', s.biases.down ? s.width : 0],
    ['router', routerFloats(s)],
    ['attentionInA4', levelBlocks(s, s.width)],
    ['ffnInA4', levelBlocks(s, s.width)],
  ] as const satisfies Entries;

/** The constants of the model behind those of its layers. */
const modelConstants = (s: ModelShape) =>
  [
    ['finalNorm', s.width],
    ['headInA4', levelBlocks(s, s.width)],
  ] as const satisfies Entries;

export type LayerConstant = ReturnType<typeof layerConstants>[number][0];
export type ModelConstant = ReturnType<typeof modelConstants>[number][0];
export type Constant = LayerConstant | ModelConstant;

const sum = (entries: Entries): number => entries.reduce((floats, [, count]) => floats + count, 0);

/** Names of the constants that every layer has, in storage order. */
export const layerConstantNames = (s: ModelShape): LayerConstant[] => layerConstants(s).map(([name]) => name);

/** Floats in the constants blob: the entries of layer 0, of layer 1, ..., and of the model. */
export const constantsFloats = (s: ModelShape): number =>
  s.layers * sum(layerConstants(s)) + sum(modelConstants(s));

/** Where a constant lies in the blob: first float, and how many. `layer` counts for constants of a layer alone. */
export function constantPlace(s: ModelShape, what: Constant, layer = 0): { first: number; floats: number } {
  const perLayer: Entries = layerConstants(s);
  const ofModel: Entries = modelConstants(s);
  const inLayer = perLayer.findIndex(([name]) => name === what);
  if (inLayer >= 0)
    return {
      first: layer * sum(perLayer) + sum(perLayer.slice(0, inLayer)),
      floats: perLayer[inLayer]![1],
    };
  const at = ofModel.findIndex(([name]) => name === what);
  return { first: s.layers * sum(perLayer) + sum(ofModel.slice(0, at)), floats: ofModel[at]![1] };
}

/** First float of a constant in the blob. */
export const constantOffset = (s: ModelShape, what: Constant, layer = 0): number =>
  constantPlace(s, what, layer).first;

/** Bytes of one embedding row: bf16 values, or a float32 scale and then one int8 a channel. */
export const embeddingRowBytes = (s: ModelShape, format: 'bf16' | 'int8'): number =>
  format === 'bf16' ? s.width * 2 : 4 + s.width;

/** Positions in one KV page. */
export const PAGE_POSITIONS = 32;

/**
 * Bytes of a tile's part of a KV page. In 4 or 8 bits: the keys of 16 positions are like a block of a w4 panel (a row a
 * position, with one or two planes of nibbles), twice; the values like blocks of 16 channels by 32 positions; 32 halves,
 * the scales of the values.
 */
function kvPartBytes(s: ModelShape): number {
  if (s.kvBits > 8) return 2 * PAGE_POSITIONS * s.headDim * (s.kvBits / 8);
  const plane = (s.kvBits / 4) * 256;
  const keys = 2 * Math.ceil(s.headDim / GROUP) * (plane + 2 * BLOCK_ROWS);
  return roundUp(keys + Math.ceil(s.headDim / BLOCK_ROWS) * plane + 2 * PAGE_POSITIONS, 64);
}

/** Bytes of one KV page on a device that holds `attentionTiles` attention tiles (all layers together). */
export const kvPageBytes = (s: ModelShape, attentionTiles: number): number => attentionTiles * kvPartBytes(s);

/** Most bytes that the system takes beyond whole KV pages: the pages of each attention tile lie together. */
export const kvSlackBytes = (attentionTiles: number): number => attentionTiles * ALIGNMENT;
