import type { ModelShape } from '../../pack/manifest.ts';
import { GROUP, roundUp, tilePanels } from '../../pack/tile-shape.ts';
import { readBf16PanelRow } from '../cut-panel.ts';
import { sourceShape } from './half-layer.ts';
import { inverseRms, normedInput } from './normed-input.ts';
import { vectorOf } from './round-tile.ts';

/** Place of K among the panels of an attention tile. */
const KEY_PANEL = 1;

/**
 * The mean of a head's keys behind their rotation by position. Taken from every key it changes no attention weight (each score
 * of a query changes by the same), and leaves less to quantize. source: an attention tile; rows: residuals of one window,
 * [tokens, width]; norm: see normedInput. [headDim]; zeros where all heads are normed as one.
 */
export function keyMean(
  s: ModelShape,
  layer: number,
  source: Uint8Array,
  rows: Float32Array,
  norm: Float32Array,
): Float32Array {
  const mean = new Float32Array(s.headDim);
  if (s.norms.queryKey === 'whole') return mean;
  const plain = sourceShape(s);
  const columns = roundUp(s.width, GROUP);
  const tokens = rows.length / s.width;
  const inputs = new Float32Array(tokens * columns);
  normedInput(plain, rows, norm, inputs);
  const keys = product(plain, source, inputs, tokens);
  const bias = vectorOf(plain, 'attention', 'keyBias', source);
  const headNorm = vectorOf(plain, 'attention', 'keyNorm', source);
  for (let t = 0; t < tokens; t++) {
    const key = keys.subarray(t * s.headDim, (t + 1) * s.headDim);
    for (let d = 0; d < bias.length; d++) key[d]! += bias[d]!;
    if (headNorm.length > 0) {
      const factor = inverseRms(key, s.normEpsilon);
      for (let d = 0; d < s.headDim; d++) key[d]! *= factor * headNorm[d]!;
    }
    turn(s, layer, key, t);
    for (let d = 0; d < s.headDim; d++) mean[d]! += key[d]! / tokens;
  }
  return mean;
}

/** Keys [tokens, headDim] of inputs [tokens, columns]. */
function product(s: ModelShape, source: Uint8Array, inputs: Float32Array, tokens: number): Float32Array {
  const panel = tilePanels(s, 'attention')[KEY_PANEL]!;
  const columns = panel.paddedColumns;
  const weights = new Float32Array(columns);
  const keys = new Float32Array(tokens * s.headDim);
  for (let d = 0; d < s.headDim; d++) {
    readBf16PanelRow(panel, d, source, weights);
    for (let t = 0; t < tokens; t++) {
      let sum = 0;
      for (let k = 0; k < columns; k++) sum += weights[k]! * inputs[t * columns + k]!;
      keys[t * s.headDim + d] = sum;
    }
  }
  return keys;
}

/** Rotates a key by its position, as the kernels do but for rounding. */
function turn(s: ModelShape, layer: number, key: Float32Array, position: number): void {
  const rotation = s.rotations[s.layerFeatures[layer]!.rotation];
  if (!rotation) return;
  const pairs = rotation.frequencies.length;
  for (const [i, frequency] of rotation.frequencies.entries()) {
    const cos = Math.cos(position * frequency) * rotation.magnitude;
    const sin = Math.sin(position * frequency) * rotation.magnitude;
    const a = key[i]!;
    const b = key[i + pairs]!;
    key[i] = a * cos - b * sin;
    key[i + pairs] = b * cos + a * sin;
  }
}
