import type { ModelShape } from '../pack/manifest.ts';
import { bf16ToFloat, halfToFloat } from '../pack/number-formats.ts';
import { BLOCK_ROWS, GROUP, type Panel } from '../pack/tile-shape.ts';
import type { ProductWeights } from './onnx-model-bytes.ts';

/** 32-bit words of one group of a block of rows: its nibbles, and all of it with the 16 scales behind them. */
const NIBBLE_WORDS = (BLOCK_ROWS * GROUP) / 8;
const GROUP_WORDS = NIBBLE_WORDS + BLOCK_ROWS / 2;

/**
 * Panels of a tile (same columns, one below the other) as the weights of one product. `tile`: the bytes of the tile, 4-byte aligned;
 * layouts in docs/pack-format.md. Rows are the stored ones, padding included.
 */
export function productWeights(
  format: ModelShape['weights'],
  tile: Uint8Array,
  panels: readonly Panel[],
): ProductWeights {
  return format === 'w4' ? w4Weights(tile, panels) : floatWeights(tile, panels);
}

const rowsOf = (panels: readonly Panel[]): number => panels.reduce((sum, panel) => sum + panel.paddedRows, 0);

function w4Weights(tile: Uint8Array, panels: readonly Panel[]): ProductWeights {
  const rows = rowsOf(panels);
  const columns = panels[0]!.paddedColumns;
  const groups = columns / GROUP;
  const nibbles = new Uint32Array(rows * groups * 4);
  const scales = new Float32Array(rows * groups);
  let row = 0;
  for (const panel of panels)
    for (let block = 0; block < panel.paddedRows / BLOCK_ROWS; block++) {
      const at = tile.byteOffset + panel.offset + block * groups * GROUP_WORDS * 4;
      unpackNibbles(new Uint32Array(tile.buffer, at, groups * GROUP_WORDS), groups, nibbles, row);
      const halves = new Uint16Array(tile.buffer, at, groups * GROUP_WORDS * 2);
      for (let group = 0; group < groups; group++)
        for (let r = 0; r < BLOCK_ROWS; r++)
          scales[(row + r) * groups + group] = halfToFloat(
            halves[(group * GROUP_WORDS + NIBBLE_WORDS) * 2 + r]!,
          );
      row += BLOCK_ROWS;
    }
  return { format: 'w4', rows, columns, nibbles: new Uint8Array(nibbles.buffer), scales };
}

/**
 * One block of 16 rows. A stored word holds 8 weights of a row: k = 0..3 in the low nibbles of its bytes, k = 4..7 in the high
 * ones. The wanted word has them in rising nibbles.
 * block: [groups, GROUP_WORDS] words, of which [4, 16] are nibbles; nibbles: [rows, groups, 4] words, written from `row`.
 */
function unpackNibbles(block: Uint32Array, groups: number, nibbles: Uint32Array, row: number): void {
  for (let group = 0; group < groups; group++)
    for (let c = 0; c < 4; c++)
      for (let r = 0; r < BLOCK_ROWS; r++) {
        const word = block[group * GROUP_WORDS + c * BLOCK_ROWS + r]!;
        nibbles[((row + r) * groups + group) * 4 + c] = closeUp(word) | (closeUp(word >>> 4) << 16);
      }
}

/** The low nibbles of four bytes as 16 bits. */
function closeUp(word: number): number {
  const low = word & 0x0f0f0f0f;
  const pairs = low | (low >>> 4);
  return (pairs & 0xff) | ((pairs >>> 8) & 0xff00);
}

function floatWeights(tile: Uint8Array, panels: readonly Panel[]): ProductWeights {
  const rows = rowsOf(panels);
  const columns = panels[0]!.paddedColumns;
  const values = new Float32Array(rows * columns);
  let row = 0;
  for (const panel of panels) {
    const stored = new Uint16Array(tile.buffer, tile.byteOffset + panel.offset, panel.bytes / 2);
    for (let block = 0; block < panel.paddedRows / BLOCK_ROWS; block++, row += BLOCK_ROWS)
      for (let column = 0; column < columns; column++)
        for (let r = 0; r < BLOCK_ROWS; r++)
          values[column * rows + row + r] = bf16ToFloat(stored[(block * columns + column) * BLOCK_ROWS + r]!);
  }
  return { format: 'float', rows, columns, values };
}
