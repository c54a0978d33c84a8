import type { ModelShape, TileKind } from '../pack/manifest.ts';
import { floatToHalf } from '../pack/number-formats.ts';
import {
  BLOCK_ROWS,
  type Constant,
  constantPlace,
  constantsFloats,
  type Panel,
  rotatedValues,
  tileCount,
  tilePanels,
  tilesPerExpert,
  vectorPlaces,
} from '../pack/tile-shape.ts';

import { setAllToA8 } from './activation-levels.ts';
import { GROUP_BYTES, NIBBLE_BYTES } from './cut-panel.ts';

/**
 * Weights that are drawn, in the pack's own form: uniform nibbles, and scales of random sign so that weights have mean
 * zero. Sizes are such that a normed input gives projections of about unit variance, that a half layer adds about
 * 1 / sqrt(2 * layers) to a channel of the residual stream, and that logits have a standard deviation of about 2.
 */

/** Bits of all activations: the kernels of A4 and A8 can then be compared. */
export type Activations = 'a4' | 'a8';

/** Standard deviation of a uniform nibble around the zero point 8. */
const NIBBLE_DEVIATION = 4.64;
/** The same of an int8 drawn uniformly. */
const INT8_DEVIATION = 73.9;
const LOGIT_DEVIATION = 2;
/** Standard deviation of silu(a) * b for normal a and b. */
const FFN_DEVIATION = 0.6;
/** How far a channel may be from its standard deviation before it saturates. */
const HEADROOM = 64;

/** xorshift32: [words] uint32, never 0. A word for about a nanosecond, and more than random enough for a bench. */
export function drawWords(words: Uint32Array, seed: number): void {
  let x = seed >>> 0 || 0x9e3779b9;
  for (let i = 0; i < words.length; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    words[i] = x;
  }
}

/** A seed for part `part` of what `seed` stands for (the finalizer of MurmurHash3). */
export function partSeed(seed: number, part: number): number {
  let h = Math.imul(seed, 0x9e3779b1) ^ Math.imul(part + 1, 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** Writes a whole w4 tile: [tileBytes] uint8, 4-byte aligned. The same seed gives the same bytes. */
export function drawTile(
  s: ModelShape,
  kind: TileKind,
  seed: number,
  activations: Activations,
  tile: Uint8Array,
): void {
  drawWords(new Uint32Array(tile.buffer, tile.byteOffset, tile.length / 4), seed);
  tile.fill(0, vectorPlaces(s, kind).places[0]!.offset);
  const panels = tilePanels(s, kind);
  panels.forEach((panel, i) => {
    const adds = kind !== 'head' && i === panels.length - 1;
    const deviation = kind === 'head' ? LOGIT_DEVIATION : adds ? 1 / Math.sqrt(2 * s.layers) : 1;
    // What adds to the residual stream is cut by columns: a sum over all tiles of the half layer.
    const columns = panel.columns * (adds ? summedTiles(s, kind) : 1);
    // A rotation of 32 channels makes them sqrt(32) times as large.
    const rotated = s.hadamard !== 0 && !(adds && kind === 'attention' && rotatedValues(s));
    const inputs = rotated ? columns * s.hadamard : columns;
    drawScales(panel, deviation / Math.sqrt(inputs) / NIBBLE_DEVIATION, tile);
  });
  const view = new DataView(tile.buffer, tile.byteOffset, tile.byteLength);
  const a4 = activations === 'a4';
  for (const { name, offset, floats } of vectorPlaces(s, kind).places)
    for (let i = 0; i < floats; i++)
      view.setFloat32(offset + i * 4, name.endsWith('Norm') || (name.endsWith('A4') && a4) ? 1 : 0, true);
}

/** Tiles whose outputs add up for one token. */
const summedTiles = (s: ModelShape, kind: TileKind): number =>
  kind === 'expert' ? s.experts!.perToken * tilesPerExpert(s) : tileCount(s, kind);

/** Turns the random bits where a panel has its scales into scales around `size`, of either sign. */
function drawScales(panel: Panel, size: number, tile: Uint8Array): void {
  const table = Uint16Array.from({ length: 256 }, (_, i) =>
    floatToHalf(size * (0.75 + (i & 127) / 256) * (i & 128 ? -1 : 1)),
  );
  const words = new Uint16Array(tile.buffer, tile.byteOffset + panel.offset, panel.bytes / 2);
  for (let scales = NIBBLE_BYTES / 2; scales < words.length; scales += GROUP_BYTES / 2)
    for (let row = scales; row < scales + BLOCK_ROWS; row++) words[row] = table[words[row]! & 255]!;
}

/** Writes int8 embedding rows of about unit variance: [rows * rowBytes] uint8. */
export function drawEmbeddingRows(rowBytes: number, seed: number, rows: Uint8Array): void {
  const words = new Uint32Array(Math.ceil(rows.length / 4));
  drawWords(words, seed);
  rows.set(new Uint8Array(words.buffer, 0, rows.length));
  const view = new DataView(rows.buffer, rows.byteOffset);
  for (let at = 0; at < rows.length; at += rowBytes) view.setFloat32(at, 1 / INT8_DEVIATION, true);
}

/** A router that picks all experts about as often: bfloat16 drawn around 1 and -1. */
function drawRouter(panel: Float32Array, seed: number): void {
  const words = new Uint32Array(panel.buffer, panel.byteOffset, panel.length);
  drawWords(words, seed);
  for (let i = 0; i < words.length; i++) words[i] = (words[i]! & 0x807f807f) | 0x3f003f00;
}

/** The constants blob: norms of 1, and fixed-point scales with room for the sizes above. */
export function syntheticConstants(s: ModelShape, activations: Activations): ArrayBuffer {
  const constants = new Float32Array(constantsFloats(s)).fill(1);
  if (activations === 'a8') setAllToA8(s, constants);
  const fill = (what: Constant, layer: number, kind: 'attention' | 'ffn', deviation: number) => {
    const { first, floats } = constantPlace(s, what, layer);
    const tiles = tileCount(s, kind) + (kind === 'ffn' && s.experts ? summedTiles(s, 'expert') : 0);
    constants.fill(fixedPointScale(tiles, deviation), first, first + floats);
  };
  const deviation = 1 / Math.sqrt(2 * s.layers);
  for (let layer = 0; layer < s.layers; layer++) {
    fill('attentionScale', layer, 'attention', deviation);
    fill('ffnScale', layer, 'ffn', deviation * FFN_DEVIATION);
    const router = constantPlace(s, 'router', layer);
    drawRouter(constants.subarray(router.first, router.first + router.floats), layer + 1);
    for (const bias of ['outputBias', 'downBias'] as const) {
      const { first, floats } = constantPlace(s, bias, layer);
      constants.fill(0, first, first + floats);
    }
  }
  return constants.buffer;
}

/** The largest power of two with which neither a tile's output nor the sum of `tiles` of them saturates. */
const fixedPointScale = (tiles: number, deviation: number): number =>
  2 ** Math.floor(Math.log2(2 ** 31 / (HEADROOM * deviation * Math.sqrt(tiles))));
