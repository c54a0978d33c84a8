import type { ModelShape } from '../pack/manifest.ts';
import { BLOCK_ROWS, rotatedValues, tileBytes, tilePanels, tileQueryHeads } from '../pack/tile-shape.ts';
import { type FillRow, writePanel } from './cut-panel.ts';
import { rotateRows } from './rotate.ts';
import type { MatrixRows } from './stored-rows.ts';

/** Reads rows `first` to `first + count` of a matrix. */
export type ReadRows = (first: number, count: number) => Promise<MatrixRows>;

/** Gives all rows of a matrix, of which columns `first` to `first + count` may be copied. */
export type ReadColumns = (first: number, count: number) => Promise<MatrixRows>;

/** Weights of an attention half layer; of `output` columns are needed. */
export interface AttentionWeights {
  readonly query: ReadRows;
  readonly key: ReadRows;
  readonly value: ReadRows;
  readonly output: ReadColumns;
}

/** Weights of an FFN half layer; of `down` columns are needed. */
export interface FfnWeights {
  readonly gate: ReadRows;
  readonly up: ReadRows;
  readonly down: ReadColumns;
  /** Intermediate columns that there are. */
  readonly width: number;
}

/** All rows that were read, each whole. */
const wholeRows =
  (rows: MatrixRows, width: number): FillRow =>
  (row, target) => {
    if (row < rows.rows) rows.copy(row, 0, width, target);
  };

/** All rows that were read, whole groups, so that what comes out of them is rotated. */
function rotatedRows(rows: MatrixRows, width: number): FillRow {
  const matrix = new Float32Array(rows.rows * width);
  for (let row = 0; row < rows.rows; row++)
    rows.copy(row, 0, width, matrix.subarray(row * width, (row + 1) * width));
  rotateRows(matrix, width);
  return (row, target) => target.set(matrix.subarray(row * width, (row + 1) * width));
}

/** Columns `first` to `first + count` of every row. */
const columnsOf =
  (matrix: MatrixRows, first: number, count: number): FillRow =>
  (row, target) =>
    matrix.copy(row, first, count, target);

/** Attention tile `index`: part `index % partsPerKvHead` of the query heads of KV head `index / partsPerKvHead`. */
export async function cutAttentionTile(
  s: ModelShape,
  weights: AttentionWeights,
  index: number,
): Promise<Uint8Array> {
  const [q, k, v, o] = tilePanels(s, 'attention');
  const kvHead = Math.floor(index / s.tiling.partsPerKvHead);
  const columns = tileQueryHeads(s) * s.headDim;
  const tile = new Uint8Array(tileBytes(s, 'attention'));
  const query = await weights.query(index * columns, columns);
  const key = await weights.key(kvHead * s.headDim, s.headDim);
  const value = await weights.value(kvHead * s.headDim, s.headDim);
  writePanel(s, q!, wholeRows(query, s.width), tile);
  writePanel(s, k!, wholeRows(key, s.width), tile);
  writePanel(s, v!, rotatedValues(s) ? rotatedRows(value, s.width) : wholeRows(value, s.width), tile);
  const output = await weights.output(index * columns, columns);
  writePanel(s, o!, columnsOf(output, index * columns, columns), tile);
  return tile;
}

/** FFN tile `index` of a matrix: intermediate columns from `index * ffnColumns` on; what the last tile lacks is zero. */
export async function cutFfnTile(
  s: ModelShape,
  weights: FfnWeights,
  index: number,
  kind: 'ffn' | 'expert',
): Promise<Uint8Array> {
  const [gateUp, down] = tilePanels(s, kind);
  const first = index * s.tiling.ffnColumns;
  const columns = Math.min(s.tiling.ffnColumns, weights.width - first);
  const tile = new Uint8Array(tileBytes(s, kind));
  const both = [
    wholeRows(await weights.gate(first, columns), s.width),
    wholeRows(await weights.up(first, columns), s.width),
  ];
  writePanel(
    s,
    gateUp!,
    (row, target) => {
      const block = Math.floor(row / BLOCK_ROWS);
      both[block % 2]!(Math.floor(block / 2) * BLOCK_ROWS + (row % BLOCK_ROWS), target);
    },
    tile,
  );
  writePanel(s, down!, columnsOf(await weights.down(first, columns), first, columns), tile);
  return tile;
}

/** Head tile `index`: vocabulary rows from `index * headRows` on; what the last tile lacks is zero. */
export async function cutHeadTile(s: ModelShape, head: ReadRows, index: number): Promise<Uint8Array> {
  const [panel] = tilePanels(s, 'head');
  const first = index * s.tiling.headRows;
  const rows = await head(first, Math.min(s.tiling.headRows, s.vocabulary - first));
  const tile = new Uint8Array(tileBytes(s, 'head'));
  writePanel(s, panel!, wholeRows(rows, s.width), tile);
  return tile;
}
