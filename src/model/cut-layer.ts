import type { ModelShape, TileKind } from '../pack/manifest.ts';
import {
  BLOCK_ROWS,
  layerTileCount,
  rotatedValues,
  roundUp,
  type TileVector,
  tileQueryHeads,
  tilesPerExpert,
  vectorPlaces,
} from '../pack/tile-shape.ts';
import { ColumnStripes } from './column-stripes.ts';
import { cutAttentionTile, cutFfnTile, type FfnWeights } from './cut-tiles.ts';
import type { LayerReader } from './layer-tensors.ts';
import { rotateRows } from './rotate.ts';

/**
 * The tiles of a layer, in execution order; in memory are one tile and a stripe of one matrix, or an expert's whole matrix. `normOffset`: see
 * ModelConfig. Rejects with what reading tensors rejects with.
 */
export async function* cutLayer(
  s: ModelShape,
  layer: number,
  reader: LayerReader,
  normOffset: number,
): AsyncGenerator<Uint8Array> {
  yield* cutAttention(s, layer, reader, normOffset);
  yield* cutFfn(s, layer, reader);
  for (let expert = 0; expert < (s.layerFeatures[layer]!.experts ? s.experts!.count : 0); expert++) {
    const whole = await reader.rows('expertDown', 0, s.width, expert);
    const weights: FfnWeights = {
      gate: (first, count) => reader.rows('expertGate', first, count, expert),
      up: (first, count) => reader.rows('expertUp', first, count, expert),
      down: async () => whole,
      width: s.experts!.width,
    };
    for (let i = 0; i < tilesPerExpert(s); i++) yield await cutFfnTile(s, weights, i, 'expert');
  }
}

async function* cutAttention(
  s: ModelShape,
  layer: number,
  reader: LayerReader,
  normOffset: number,
): AsyncGenerator<Uint8Array> {
  const output = new ColumnStripes(
    (first, count) => reader.rows('output', first, count),
    s.width,
    s.queryHeads * s.headDim,
  );
  const weights = {
    query: (first: number, count: number) => reader.rows('query', first, count),
    key: (first: number, count: number) => reader.rows('key', first, count),
    value: (first: number, count: number) => reader.rows('value', first, count),
    output: (first: number, count: number) => output.columns(first, count),
  };
  const vectors = {
    queryBias: await reader.vector('queryBias'),
    keyBias: await reader.vector('keyBias'),
    valueBias: await reader.vector('valueBias'),
    queryNorm: (await reader.vector('queryNorm')).map(value => value + normOffset),
    keyNorm: (await reader.vector('keyNorm')).map(value => value + normOffset),
  };
  const columns = tileQueryHeads(s) * s.headDim;
  for (let index = 0; index < layerTileCount(s, 'attention', layer); index++) {
    const tile = await cutAttentionTile(s, weights, index);
    const key = Math.floor(index / s.tiling.partsPerKvHead) * s.headDim;
    // A norm of one head is the same in every tile.
    const whole = s.norms.queryKey === 'whole';
    writeVectors(s, 'attention', tile, {
      queryBias: from(vectors.queryBias, index * columns),
      keyBias: from(vectors.keyBias, key),
      valueBias: from(rotatedValues(s) ? rotated(vectors.valueBias) : vectors.valueBias, key),
      queryNorm: from(vectors.queryNorm, whole ? index * columns : 0),
      keyNorm: from(vectors.keyNorm, whole ? key : 0),
    });
    yield tile;
  }
}

async function* cutFfn(s: ModelShape, layer: number, reader: LayerReader): AsyncGenerator<Uint8Array> {
  const tiles = layerTileCount(s, 'ffn', layer);
  if (tiles === 0) return;
  const width = s.layerFeatures[layer]!.experts ? s.experts!.sharedWidth : s.ffnWidth;
  const down = new ColumnStripes((first, count) => reader.rows('down', first, count), s.width, width);
  const weights: FfnWeights = {
    gate: (first, count) => reader.rows('gate', first, count),
    up: (first, count) => reader.rows('up', first, count),
    down: (first, count) => down.columns(first, count),
    width,
  };
  const biases = [await reader.vector('gateBias'), await reader.vector('upBias')] as const;
  for (let index = 0; index < tiles; index++) {
    const tile = await cutFfnTile(s, weights, index, 'ffn');
    writeVectors(s, 'ffn', tile, {
      gateUpBias: interleaved(biases, index * s.tiling.ffnColumns, s.tiling.ffnColumns),
    });
    yield tile;
  }
}

/** The bias of values that come rotated. */
function rotated(bias: Float32Array): Float32Array {
  const out = bias.slice();
  rotateRows(out, 1);
  return out;
}

const from = (values: Float32Array, first: number): Float32Array => values.subarray(first);

/** Parts of two vectors by blocks of 16 in turn, as the rows of a gate-up panel are; zero behind their ends. */
function interleaved(
  vectors: readonly [Float32Array, Float32Array],
  first: number,
  count: number,
): Float32Array {
  const out = new Float32Array(2 * roundUp(count, BLOCK_ROWS));
  vectors.forEach((values, which) => {
    for (let i = 0; i < count && first + i < values.length; i++)
      out[(Math.floor(i / BLOCK_ROWS) * 2 + which) * BLOCK_ROWS + (i % BLOCK_ROWS)] = values[first + i]!;
  });
  return out;
}

/** Writes the vectors that a tile has; of each value as many as the tile holds. */
function writeVectors(
  s: ModelShape,
  kind: TileKind,
  tile: Uint8Array,
  values: Partial<Record<TileVector, Float32Array>>,
): void {
  const view = new DataView(tile.buffer, tile.byteOffset, tile.byteLength);
  for (const { name, offset, floats } of vectorPlaces(s, kind).places)
    for (let i = 0; i < floats; i++) view.setFloat32(offset + i * 4, values[name]?.[i] ?? 0, true);
}
