import type { ModelShape } from '../../pack/manifest.ts';
import { GROUP, roundUp } from '../../pack/tile-shape.ts';
import { rotateInputs } from '../rotate.ts';

/**
 * What panels that see the residual stream see: its rows normed and rotated, before they are quantized. rows: [tokens, width];
 * norm: [width], or empty where rows are not normed; target: [tokens, width padded to 32].
 */
export function normedInput(
  s: ModelShape,
  rows: Float32Array,
  norm: Float32Array,
  target: Float32Array,
): void {
  const columns = roundUp(s.width, GROUP);
  const tokens = rows.length / s.width;
  target.fill(0);
  for (let t = 0; t < tokens; t++) {
    const row = rows.subarray(t * s.width, (t + 1) * s.width);
    const out = target.subarray(t * columns, (t + 1) * columns);
    const factor = norm.length > 0 ? inverseRms(row, s.normEpsilon) : 1;
    for (let k = 0; k < row.length; k++) out[k] = row[k]! * factor * (norm[k] ?? 1);
    if (s.hadamard !== 0) rotateInputs(out);
  }
}

export function inverseRms(row: Float32Array, epsilon: number): number {
  let sum = 0;
  for (const value of row) sum += value * value;
  return 1 / Math.sqrt(sum / row.length + epsilon);
}
