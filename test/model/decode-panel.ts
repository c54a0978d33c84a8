import type { ModelShape, WeightFormat } from '../../src/pack/manifest.ts';
import { bf16ToFloat, halfToFloat } from '../../src/pack/number-formats.ts';
import type { Panel } from '../../src/pack/tile-shape.ts';

/**
 * Reads a panel back, written apart from src/model/cut-panel.ts: for every weight the place that docs/pack-format.md
 * gives it. Returns [paddedRows][paddedColumns].
 */
export function decodePanel(weights: WeightFormat, panel: Panel, tile: Uint8Array): Float32Array[] {
  const view = new DataView(tile.buffer, tile.byteOffset + panel.offset, panel.bytes);
  const rows = [];
  for (let row = 0; row < panel.paddedRows; row++) {
    const out = new Float32Array(panel.paddedColumns);
    for (let column = 0; column < panel.paddedColumns; column++)
      out[column] = (weights === 'w4' ? w4 : bf16)(view, panel, row, column);
    rows.push(out);
  }
  return rows;
}

function w4(view: DataView, panel: Panel, row: number, column: number): number {
  const block = Math.floor(row / 16) * panel.paddedColumns * 9;
  const group = Math.floor(column / 32);
  const k = column % 32;
  const vector = Math.floor(k / 8);
  const byte = view.getUint8(block + group * 288 + vector * 64 + (row % 16) * 4 + (k % 4));
  const nibble = k % 8 < 4 ? byte & 15 : byte >>> 4;
  const scale = halfToFloat(view.getUint16(block + group * 288 + 256 + (row % 16) * 2, true));
  return (nibble - 8) * scale;
}

function bf16(view: DataView, panel: Panel, row: number, column: number): number {
  const block = Math.floor(row / 16) * panel.paddedColumns * 32;
  return bf16ToFloat(view.getUint16(block + column * 32 + (row % 16) * 2, true));
}

/** Element (i, k) of the Hadamard matrix: -1 to the number of ones that i and k share. */
const SIGNS = Array.from({ length: 32 }, (_, i) =>
  Float64Array.from({ length: 32 }, (_, k) => (-1) ** (i & k).toString(2).replaceAll('0', '').length),
);

/** Each 32 values of `x` times H, times `factor`. */
function timesHadamard(x: Float32Array, factor: number): Float32Array {
  const out = new Float32Array(x.length);
  for (let group = 0; group < x.length; group += 32)
    for (let i = 0; i < 32; i++) {
      const signs = SIGNS[i]!;
      let sum = 0;
      for (let k = 0; k < 32; k++) sum += x[group + k]! * signs[k]!;
      out[group + i] = sum * factor;
    }
  return out;
}

const transposed = (rows: readonly Float32Array[]): Float32Array[] =>
  Array.from(rows[0]!, (_, column) => Float32Array.from(rows, row => row[column]!));

/**
 * The panels of an attention tile (query, key, value, output) or of another, as the weights were before the pack rotated
 * them: columns times H, and the rows of values times H / 32.
 */
export function unrotated(shape: ModelShape, panels: readonly Float32Array[][]): Float32Array[][] {
  if (shape.hadamard === 0) return panels.map(panel => [...panel]);
  const plain = panels.map(panel => panel.map(row => timesHadamard(row, 1)));
  if (panels.length !== 4 || shape.headDim % 32 !== 0) return plain;
  const values = transposed(transposed(plain[2]!).map(column => timesHadamard(column, 1 / 32)));
  return plain.with(2, values);
}
