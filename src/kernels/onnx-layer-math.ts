import type { ModelShape } from '../pack/manifest.ts';
import { roundUp } from '../pack/tile-shape.ts';

/** The parts of a layer that are not matrix products, after docs/numerics.md, but in double precision between roundings. */

/**
 * RMSNorm. x: [width] float32 at `at`; weight: [width]; y: [width rounded up to 32] at `to`, whose padding stays.
 */
export function normalizeRow(
  x: Float32Array,
  at: number,
  weight: Float32Array,
  epsilon: number,
  y: Float32Array,
  to: number,
): void {
  const width = weight.length;
  let squares = 0;
  for (let j = 0; j < width; j++) squares += x[at + j]! * x[at + j]!;
  const r = 1 / Math.sqrt(squares / width + epsilon);
  for (let j = 0; j < width; j++) y[to + j] = x[at + j]! * r * weight[j]!;
}

/** Cosines and sines of the tokens of a batch. */
export interface Rotations {
  /** [tokens, headDim / 2] */
  readonly cos: Float32Array;
  readonly sin: Float32Array;
}

export function rotationsOf(positions: Int32Array, frequencies: readonly number[]): Rotations {
  const half = frequencies.length;
  const cos = new Float32Array(positions.length * half);
  const sin = new Float32Array(positions.length * half);
  positions.forEach((position, t) => {
    frequencies.forEach((frequency, i) => {
      const angle = Math.fround(position * Math.fround(frequency));
      cos[t * half + i] = Math.cos(angle);
      sin[t * half + i] = Math.sin(angle);
    });
  });
  return { cos, sin };
}

/** RoPE of one head in place, times `factor`. x: [headDim] at `at`. */
export function rotateHead(
  x: Float32Array,
  at: number,
  headDim: number,
  { cos, sin }: Rotations,
  token: number,
  factor: number,
): void {
  const half = headDim / 2;
  for (let i = 0; i < half; i++) {
    const c = cos[token * half + i]!;
    const s = sin[token * half + i]!;
    const a = x[at + i]!;
    const b = x[at + half + i]!;
    x[at + i] = (a * c - b * s) * factor;
    x[at + half + i] = (b * c + a * s) * factor;
  }
}

/**
 * h = silu(gate) * up. both: [tokens, 2 * columns], gate and up interleaved by blocks of 16; returns [tokens, columns].
 */
export function gatedRows(both: Float32Array, tokens: number, columns: number): Float32Array {
  const h = new Float32Array(tokens * columns);
  for (let t = 0; t < tokens; t++)
    for (let i = 0; i < columns; i++) {
      const from = t * 2 * columns + Math.floor(i / 16) * 32 + (i % 16);
      const gate = both[from]!;
      h[t * columns + i] = (gate / (1 + Math.exp(-gate))) * both[from + 16]!;
    }
  return h;
}

/** The largest float32 not above (2^31 - 1) / tiles: a sum over all tiles cannot overflow. */
export function fixedPointLimit(tiles: number): number {
  const exact = (2 ** 31 - 1) / tiles;
  const float = new Float32Array([exact]);
  if (float[0]! > exact) new Uint32Array(float.buffer)[0]!--;
  return float[0]!;
}

/** Adding and subtracting it leaves a double rounded to a whole number, ties to even. */
const ROUND = 1.5 * 2 ** 52;

/**
 * Adds tile outputs to the partial sums as fixed point; returns how many did not fit or were not numbers.
 * output: [tokens, stride] float32; scale: [width] powers of two; partial: [tokens, width] int32.
 */
export function addFixedPoint(
  output: Float32Array,
  stride: number,
  tokens: number,
  scale: Float32Array,
  limit: number,
  partial: Int32Array,
): number {
  const width = scale.length;
  let saturated = 0;
  for (let t = 0; t < tokens; t++)
    for (let j = 0; j < width; j++) {
      let r = output[t * stride + j]! * scale[j]!;
      if (!(r >= -limit && r <= limit)) {
        saturated++;
        r = Number.isNaN(r) ? 0 : Math.sign(r) * limit;
      }
      const at = t * width + j;
      partial[at] = (partial[at]! + (r + ROUND - ROUND)) | 0;
    }
  return saturated;
}

/** residual [tokens, width] += partial / scale. */
export function addPartial(
  residual: Float32Array,
  partial: Int32Array,
  scale: Float32Array,
  tokens: number,
): void {
  const width = scale.length;
  for (let t = 0; t < tokens; t++)
    for (let j = 0; j < width; j++) {
      const at = t * width + j;
      residual[at] = residual[at]! + Math.fround(Math.fround(partial[at]!) / scale[j]!);
    }
}

/**
 * Multiplies each 32 of `columns` numbers of every row by the Hadamard matrix of +1 and -1, as rotated weights want it.
 * x: [rows, columns] float32, columns a multiple of 32; changed in place.
 */
export function hadamardRows(x: Float32Array, rows: number, columns: number): void {
  for (let at = 0; at < rows * columns; at += 32)
    for (let half = 1; half < 32; half *= 2)
      for (let i = at; i < at + 32; i++) {
        if ((i - at) & half) continue;
        const a = x[i]!;
        const b = x[i + half]!;
        x[i] = a + b;
        x[i + half] = a - b;
      }
}

/** Row length of normalized activations: the width with padding to whole groups. */
export const paddedWidth = (shape: ModelShape): number => roundUp(shape.width, 32);
