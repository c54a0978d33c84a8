import { PotluckError } from '../errors/errors.ts';

/** A vocabulary range: the rows of one head tile. */
export interface LogitColumns {
  readonly start: number;
  readonly count: number;
}

export const logitColumnCount = (columns: readonly LogitColumns[]): number =>
  columns.reduce((sum, { count }) => sum + count, 0);

function requireFit(
  logits: Float32Array,
  rowLength: number,
  columns: readonly LogitColumns[],
  rows: number,
): void {
  const end = Math.max(0, ...columns.map(({ start, count }) => start + count));
  if (end > rowLength || rows * rowLength > logits.length)
    throw new PotluckError(
      'INTERNAL',
      `A logits buffer of ${logits.length} floats is too small for ${rows} rows of ${Math.max(end, rowLength)}.`,
    );
}

/**
 * Packs the columns of a device out of its logits buffer.
 * logits: [rows, rowLength] float32; packed: [>= rows * sum of counts] float32, row by row. Throws INTERNAL where the
 * buffer is too small.
 */
export function gatherLogits(
  logits: Float32Array,
  rowLength: number,
  columns: readonly LogitColumns[],
  rows: number,
  packed: Float32Array,
): void {
  requireFit(logits, rowLength, columns, rows);
  let at = 0;
  for (let row = 0; row < rows; row++)
    for (const { start, count } of columns) {
      packed.set(logits.subarray(row * rowLength + start, row * rowLength + start + count), at);
      at += count;
    }
}

/** The other way round: puts packed columns where they belong in `logits`. */
export function scatterLogits(
  packed: Float32Array,
  columns: readonly LogitColumns[],
  rows: number,
  logits: Float32Array,
  rowLength: number,
): void {
  requireFit(logits, rowLength, columns, rows);
  let at = 0;
  for (let row = 0; row < rows; row++)
    for (const { start, count } of columns) {
      logits.set(packed.subarray(at, at + count), row * rowLength + start);
      at += count;
    }
}
