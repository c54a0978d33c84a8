import type { ModelShape } from '../pack/manifest.ts';
import { bf16ToFloat, floatToBf16 } from '../pack/number-formats.ts';
import { BLOCK_ROWS, GROUP, type Panel } from '../pack/tile-shape.ts';
import { quantizeGroup } from './quantize-w4.ts';
import { rotateColumns } from './rotate.ts';

/**
 * Puts row `row` of a panel into `target` ([paddedColumns], zeros before). Rows that the matrix lacks stay zero.
 */
export type FillRow = (row: number, target: Float32Array) => void;

/** Bytes of one group of one block (16 rows x 32 columns): the nibbles, and all of it with the 16 scales. */
export const NIBBLE_BYTES = (BLOCK_ROWS * GROUP) / 2;
export const GROUP_BYTES = NIBBLE_BYTES + BLOCK_ROWS * 2;

/** Writes a panel into `tile` (all bytes of the tile, zeros before). Layouts: docs/pack-format.md. */
export function writePanel(
  shape: Pick<ModelShape, 'weights' | 'hadamard'>,
  panel: Panel,
  fill: FillRow,
  tile: Uint8Array,
): void {
  const values = new Float32Array(panel.paddedColumns);
  const writeRow = shape.weights === 'w4' ? writeW4Row : writeBf16PanelRow;
  for (let row = 0; row < panel.paddedRows; row++) {
    values.fill(0);
    if (row < panel.rows) fill(row, values);
    if (shape.hadamard !== 0) rotateColumns(values);
    writeRow(panel, row, values, tile);
  }
}

const nibbles = new Uint8Array(GROUP);

/** A row that is rounded already: nibbles [paddedColumns], scales [paddedColumns / 32] IEEE half. See writePanel. */
export function writeRoundedRow(
  panel: Panel,
  row: number,
  rowNibbles: Uint8Array,
  scales: Uint16Array,
  tile: Uint8Array,
): void {
  for (let g = 0; g < scales.length; g++)
    writeGroup(panel, row, g, rowNibbles.subarray(g * GROUP, (g + 1) * GROUP), scales[g]!, tile);
}

/** The rows that fill the last block of a panel. */
export function writePaddingRows(panel: Panel, tile: Uint8Array): void {
  const groups = panel.paddedColumns / GROUP;
  const zeros = new Uint8Array(panel.paddedColumns).fill(8);
  for (let row = panel.rows; row < panel.paddedRows; row++)
    writeRoundedRow(panel, row, zeros, new Uint16Array(groups), tile);
}

/** Reads row `row` of a bf16 panel into `target` ([paddedColumns]). */
export function readBf16PanelRow(panel: Panel, row: number, tile: Uint8Array, target: Float32Array): void {
  const lane = row % BLOCK_ROWS;
  const block = panel.offset + (row - lane) * panel.paddedColumns * 2;
  for (let k = 0; k < panel.paddedColumns; k++) {
    const at = block + (k * BLOCK_ROWS + lane) * 2;
    target[k] = bf16ToFloat(tile[at]! | (tile[at + 1]! << 8));
  }
}

/**
 * A block of 16 rows: group after group, each 256 bytes of nibbles and then the scales of the 16 rows, IEEE half. Of the
 * nibbles byte 64c + 4*row + j has weight 8c + j of the row in its low half and weight 8c + 4 + j in its high half.
 */
function writeW4Row(panel: Panel, row: number, values: Float32Array, tile: Uint8Array): void {
  for (let g = 0; g < panel.paddedColumns / GROUP; g++) {
    const scale = quantizeGroup(values, g * GROUP, nibbles);
    writeGroup(panel, row, g, nibbles, scale, tile);
  }
}

function writeGroup(
  panel: Panel,
  row: number,
  g: number,
  values: Uint8Array,
  scale: number,
  tile: Uint8Array,
): void {
  const groups = panel.paddedColumns / GROUP;
  const lane = row % BLOCK_ROWS;
  const group = panel.offset + (((row - lane) / BLOCK_ROWS) * groups + g) * GROUP_BYTES;
  const at = group + lane * 4;
  for (let c = 0; c < 4; c++)
    for (let j = 0; j < 4; j++) tile[at + c * 64 + j] = values[8 * c + j]! | (values[8 * c + 4 + j]! << 4);
  const scaleAt = group + NIBBLE_BYTES + lane * 2;
  tile[scaleAt] = scale & 255;
  tile[scaleAt + 1] = scale >>> 8;
}

/** A block of 16 rows: for each column 16 bfloat16, one a row. */
function writeBf16PanelRow(panel: Panel, row: number, values: Float32Array, tile: Uint8Array): void {
  const lane = row % BLOCK_ROWS;
  const block = panel.offset + (row - lane) * panel.paddedColumns * 2;
  for (let k = 0; k < panel.paddedColumns; k++) {
    const bits = floatToBf16(values[k]!);
    tile[block + (k * BLOCK_ROWS + lane) * 2] = bits & 255;
    tile[block + (k * BLOCK_ROWS + lane) * 2 + 1] = bits >>> 8;
  }
}
