import { constantOffset, rotatedValues, tileCount, tileQueryHeads } from '../../src/pack/tile-shape.ts';
import { fromHalf, toHalf } from './number-formats.ts';
import { embedded, type SmallModel } from './small-model.ts';

type Rows = Float64Array[];

interface Rounded extends SmallModel {
  /** Columns of an input that have one scale. */
  readonly rounded: number;
}

/**
 * The logits of every position of one sequence, in double precision, without fixed point. With w4 the inputs of matrices
 * are rounded to int8, `rounded` columns together; keys and values of 16 bits to halves, as the store does, those of fewer not at all.
 */
export function oracleLogits(model: SmallModel, sequence: number, tokens: number, rounded = 128): Rows {
  const small: Rounded = { ...model, rounded };
  const { shape } = small;
  const residual = Array.from({ length: tokens }, (_, t) =>
    Float64Array.from(embedded(shape.width, sequence, t)),
  );
  for (let layer = 0; layer < shape.layers; layer++) {
    addHalf(residual, attentionHalf(small, layer, normed(small, residual, 'attentionNorm', layer)));
    addHalf(residual, ffnHalf(small, layer, normed(small, residual, 'ffnNorm', layer)));
  }
  const last = normed(small, residual, 'finalNorm', 0);
  return last.map(row => {
    const x = asInput(small, row);
    const logits: number[] = [];
    for (let index = 0; index < tileCount(shape, 'head'); index++)
      logits.push(...times(small.tile('head', 0, index).panels[0]!, x));
    return Float64Array.from(logits.slice(0, shape.vocabulary));
  });
}

function addHalf(residual: Rows, change: Rows): void {
  residual.forEach((row, t) => {
    row.forEach((value, j) => {
      row[j] = value + change[t]![j]!;
    });
  });
}

function normed(
  small: SmallModel,
  x: Rows,
  what: 'attentionNorm' | 'ffnNorm' | 'finalNorm',
  layer: number,
): Rows {
  const { shape } = small;
  const weight = new Float32Array(small.constants, constantOffset(shape, what, layer) * 4, shape.width);
  return x.map(row => {
    const mean = row.reduce((sum, value) => sum + value * value, 0) / shape.width;
    return row.map((value, j) => (value / Math.sqrt(mean + shape.normEpsilon)) * weight[j]!);
  });
}

/** The input of a matrix: with w4 rotated where the model is, and rounded. */
function asInput(small: Rounded, values: Float64Array, alreadyRotated = false): Float64Array {
  if (small.shape.weights === 'bf16') return values;
  const x = small.shape.hadamard === 0 || alreadyRotated ? values : hadamard(values);
  const out = x.slice();
  for (let g = 0; g < x.length; g += small.rounded) {
    const step =
      x.subarray(g, g + small.rounded).reduce((most, value) => Math.max(most, Math.abs(value)), 0) / 127;
    for (let i = g; i < Math.min(g + small.rounded, x.length); i++) out[i] = Math.round(x[i]! / step) * step;
  }
  return out;
}

/** Each 32 values, zeros behind them, times the matrix of (-1)^(number of ones that i and k share). */
function hadamard(x: Float64Array): Float64Array {
  return Float64Array.from({ length: Math.ceil(x.length / 32) * 32 }, (_, i) => {
    let sum = 0;
    for (let k = 0; k < 32; k++)
      sum += (x[i - (i % 32) + k] ?? 0) * (-1) ** ((i % 32) & k).toString(2).replaceAll('0', '').length;
    return sum;
  });
}

/** Matrix [rows][paddedColumns] times x [columns]. */
function times(matrix: readonly Float64Array[], x: Float64Array): Float64Array {
  return Float64Array.from(matrix, row => x.reduce((sum, value, k) => sum + value * row[k]!, 0));
}

function rotated(x: Float64Array, position: number, frequencies: readonly number[]): Float64Array {
  const half = x.length / 2;
  const out = x.slice();
  frequencies.forEach((frequency, i) => {
    const angle = Math.fround(position * Math.fround(frequency));
    out[i] = x[i]! * Math.cos(angle) - x[i + half]! * Math.sin(angle);
    out[i + half] = x[i + half]! * Math.cos(angle) + x[i]! * Math.sin(angle);
  });
  return out;
}

function attentionHalf(small: Rounded, layer: number, x: Rows): Rows {
  const { shape } = small;
  const { headDim } = shape;
  const { frequencies } = shape.rotations[0]!;
  const out = x.map(() => new Float64Array(shape.width));
  for (let index = 0; index < tileCount(shape, 'attention'); index++) {
    const [wq, wk, wv, wo] = small.tile('attention', layer, index).panels;
    const halves = (values: Float64Array) =>
      shape.kvBits === 16 ? values.map(value => fromHalf(toHalf(value))) : values;
    const inputs = x.map(row => asInput(small, row));
    const keys = inputs.map((row, t) => halves(rotated(times(wk!, row).slice(0, headDim), t, frequencies)));
    const values = inputs.map(row => halves(times(wv!, row).slice(0, headDim)));
    inputs.forEach((row, t) => {
      const q = times(wq!, row);
      const heads: number[] = [];
      for (let h = 0; h < tileQueryHeads(shape); h++) {
        const head = rotated(q.slice(h * headDim, (h + 1) * headDim), t, frequencies);
        heads.push(...attend(head, keys.slice(0, t + 1), values));
      }
      times(wo!, asInput(small, Float64Array.from(heads), rotatedValues(shape))).forEach((value, j) => {
        if (j < shape.width) out[t]![j]! += value;
      });
    });
  }
  return out;
}

function attend(q: Float64Array, keys: Rows, values: Rows): Float64Array {
  const scores = keys.map(key => key.reduce((sum, k, d) => sum + k * q[d]!, 0) / Math.sqrt(q.length));
  const most = Math.max(...scores);
  const weights = scores.map(score => Math.exp(score - most));
  const total = weights.reduce((a, b) => a + b, 0);
  return q.map((_, d) => weights.reduce((sum, weight, t) => sum + weight * values[t]![d]!, 0) / total);
}

function ffnHalf(small: Rounded, layer: number, x: Rows): Rows {
  const { shape } = small;
  const out = x.map(() => new Float64Array(shape.width));
  for (let index = 0; index < tileCount(shape, 'ffn'); index++) {
    const [gateUp, down] = small.tile('ffn', layer, index).panels;
    x.forEach((row, t) => {
      const both = times(gateUp!, asInput(small, row));
      const hidden = Float64Array.from({ length: shape.tiling.ffnColumns }, (_, i) => {
        const at = Math.floor(i / 16) * 32 + (i % 16);
        return (both[at]! / (1 + Math.exp(-both[at]!))) * both[at + 16]!;
      });
      times(down!, asInput(small, hidden)).forEach((value, j) => {
        if (j < shape.width) out[t]![j]! += value;
      });
    });
  }
  return out;
}
