import { GROUP } from '../pack/tile-shape.ts';

/**
 * The rotation of w4 panels (QuaRot, arXiv 2404.00456, within groups of 32 channels): kernels multiply each group of an
 * input by the Hadamard matrix H of +1 and -1 before they quantize it, so that no channel stands out, and the weights are
 * multiplied by its inverse, H / 32, when they are packed.
 */

/** Multiplies the `GROUP` numbers of `x` from `at` on, `stride` apart, by H times `factor`. */
function transform(x: Float32Array | Float64Array, at: number, stride: number, factor: number): void {
  for (let half = 1; half < GROUP; half *= 2)
    for (let i = 0; i < GROUP; i++) {
      if (i & half) continue;
      const a = x[at + i * stride]!;
      const b = x[at + (i + half) * stride]!;
      x[at + i * stride] = a + b;
      x[at + (i + half) * stride] = a - b;
    }
  for (let i = 0; i < GROUP; i++) x[at + i * stride]! *= factor;
}

/** A row of weights for rotated inputs. row: [columns], whole groups; changed in place. */
export function rotateColumns(row: Float32Array | Float64Array): void {
  for (let at = 0; at < row.length; at += GROUP) transform(row, at, 1, 1 / GROUP);
}

/** Weights whose outputs come rotated. matrix: [rows, columns], whole groups of rows; changed in place. */
export function rotateRows(matrix: Float32Array | Float64Array, columns: number): void {
  for (let first = 0; first < matrix.length; first += GROUP * columns)
    for (let column = 0; column < columns; column++) transform(matrix, first + column, columns, 1);
}

/** An input as the kernels rotate it. x: whole groups; changed in place. */
export function rotateInputs(x: Float32Array | Float64Array): void {
  for (let at = 0; at < x.length; at += GROUP) transform(x, at, 1, 1);
}
