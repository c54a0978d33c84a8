import { fromBf16, fromHalf, toBf16, toHalf } from './number-formats.ts';

/**
 * Panels made from what is wanted of every weight, written apart from src/model: for each weight the byte that
 * docs/pack-format.md gives it.
 */
export interface MadePanel {
  readonly bytes: Uint8Array;
  /** The weights as they are stored; [rows][columns]. */
  readonly weights: Float64Array[];
}

/** rows a multiple of 16, columns of 32. `nibble(row, column)` is 0..15, `scale(row, group)` any number. */
export function makeW4(
  rows: number,
  columns: number,
  nibble: (row: number, column: number) => number,
  scale: (row: number, group: number) => number,
): MadePanel {
  const groups = columns / 32;
  const bytes = new Uint8Array((rows / 16) * groups * 288);
  const view = new DataView(bytes.buffer);
  const weights = Array.from({ length: rows }, () => new Float64Array(columns));
  for (let row = 0; row < rows; row++) {
    const block = Math.floor(row / 16) * groups * 288;
    for (let column = 0; column < columns; column++) {
      const group = Math.floor(column / 32);
      const k = column % 32;
      const at = block + group * 288 + Math.floor(k / 8) * 64 + (row % 16) * 4 + (k % 4);
      const stored = nibble(row, column);
      bytes[at]! |= k % 8 < 4 ? stored : stored << 4;
      weights[row]![column] = stored - 8;
    }
    for (let group = 0; group < groups; group++) {
      const half = toHalf(scale(row, group));
      view.setUint16(block + group * 288 + 256 + (row % 16) * 2, half, true);
      for (let k = 0; k < 32; k++) weights[row]![group * 32 + k]! *= fromHalf(half);
    }
  }
  return { bytes, weights };
}

/** rows a multiple of 16, columns of 32. */
export function makeBf16(
  rows: number,
  columns: number,
  weight: (row: number, column: number) => number,
): MadePanel {
  const bytes = new Uint8Array(rows * columns * 2);
  const view = new DataView(bytes.buffer);
  const weights = Array.from({ length: rows }, () => new Float64Array(columns));
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++) {
      const bits = toBf16(weight(row, column));
      view.setUint16(Math.floor(row / 16) * columns * 32 + column * 32 + (row % 16) * 2, bits, true);
      weights[row]![column] = fromBf16(bits);
    }
  return { bytes, weights };
}
