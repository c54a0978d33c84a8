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
const sign = (i: number, k: number): number => (-1) ** (i & k).toString(2).replaceAll('0', '').length;

/**
 * The panels of an attention tile (query, key, value, output) or of another, as the weights were before the pack rotated
 * them: columns times H, and the rows of values times H / 32.
 */
export function unrotated(shape: ModelShape, panels: readonly Float32Array[][]): Float32Array[][] {
  if (shape.rotation === 0) return panels.map(panel => [...panel]);
  const groups = (n: number) => n - (n % 32);
  const columns = panels.map(panel =>
    panel.map(row =>
      row.map((_, i) => {
        let sum = 0;
        for (let k = 0; k < 32; k++) sum += row[groups(i) + k]! * sign(i % 32, k);
        return sum;
      }),
    ),
  );
  if (panels.length !== 4 || shape.headDim % 32 !== 0) return columns;
  const values = columns[2]!;
  const rows = values.map((row, i) =>
    row.map((_, column) => {
      let sum = 0;
      for (let k = 0; k < 32; k++) sum += values[groups(i) + k]![column]! * sign(i % 32, k);
      return sum / 32;
    }),
  );
  return columns.with(2, rows);
}
