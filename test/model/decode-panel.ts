import type { WeightFormat } from '../../src/pack/manifest.ts';
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
