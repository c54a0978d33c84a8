import { expect, it } from 'vitest';
import { ColumnStripes } from '../../src/model/column-stripes.ts';
import type { MatrixRows } from '../../src/model/stored-rows.ts';

const ROWS = 5;
const COLUMNS = 70;

/** A matrix whose element (r, c) is 1000 r + c, and how often its first row was read. */
function matrix() {
  const reads = { first: 0 };
  const read = async (from: number, rows: number): Promise<MatrixRows> => {
    if (from === 0) reads.first++;
    return {
      rows,
      copy: (row, first, count, target) => {
        for (let i = 0; i < count; i++) target[i] = 1000 * (from + row) + first + i;
      },
    };
  };
  return { read, reads };
}

it('gives every column, and holds no more than a stripe', async () => {
  const { read, reads } = matrix();
  const stripes = new ColumnStripes(read, ROWS, COLUMNS, ROWS * 32 + 7);
  for (let first = 0; first < COLUMNS; first += 16) {
    const count = Math.min(16, COLUMNS - first);
    const rows = await stripes.columns(first, count);
    expect(rows.rows).toBe(ROWS);
    const target = new Float32Array(count);
    for (let row = 0; row < ROWS; row++) {
      rows.copy(row, first, count, target);
      expect([...target]).toEqual(Array.from({ length: count }, (_, i) => 1000 * row + first + i));
    }
    if (first >= 32) expect(() => rows.copy(0, first - 32, 1, target)).toThrow('not in the stripe');
  }
  expect(reads.first).toBe(3);
});

it('reads whole tiles of columns where even one is over the limit', async () => {
  const { read, reads } = matrix();
  const stripes = new ColumnStripes(read, ROWS, COLUMNS, 1);
  await stripes.columns(0, 16);
  await stripes.columns(16, 16);
  expect(reads.first).toBe(2);
});
