import { expect, test } from 'vitest';
import {
  addFixedPoint,
  addPartial,
  fixedPointLimit,
  gatedRows,
  normalizeRow,
  rotateHead,
  rotationsOf,
} from '../../src/kernels/onnx-layer-math.ts';

test('normalizes a row by its root mean square, and leaves the padding', () => {
  const y = new Float32Array(6).fill(9);
  normalizeRow(Float32Array.of(0, 3, -4), 1, Float32Array.of(1, 2), 0, y, 2);
  const r = Math.sqrt(12.5);
  expect([...y]).toEqual([9, 9, Math.fround(3 / r), Math.fround(-8 / r), 9, 9]);
});

test('rotates pairs (i, i + headDim / 2) by position times frequency', () => {
  const x = Float32Array.of(0, 1, 2, 3, 4);
  rotateHead(x, 1, 4, rotationsOf(Int32Array.of(7, 2), [Math.PI / 4, 0]), 1, 2);
  expect(x[0]).toBe(0);
  expect(x[1]).toBeCloseTo(-6, 5);
  expect(x[2]).toBe(4);
  expect(x[3]).toBeCloseTo(2, 5);
  expect(x[4]).toBe(8);
});

test('gates what lies in blocks of 16', () => {
  const both = Float32Array.from({ length: 64 }, (_, i) => (i % 32 < 16 ? i / 8 - 3 : i));
  const h = gatedRows(both, 1, 32);
  for (const i of [0, 5, 15, 16, 31]) {
    const at = i < 16 ? i : i + 16;
    const gate = at / 8 - 3;
    expect(h[i]).toBeCloseTo((gate / (1 + Math.exp(-gate))) * (at + 16), 4);
  }
  expect(
    gatedRows(Float32Array.of(...new Array(16).fill(-2000), ...new Array(16).fill(1)), 1, 16)[0],
  ).toBeCloseTo(0);
});

test('the limit is the largest float32 whose sum over all tiles fits', () => {
  for (const tiles of [1, 2, 3, 7, 100]) {
    const limit = fixedPointLimit(tiles);
    expect(Math.fround(limit)).toBe(limit);
    expect(limit * tiles).toBeLessThanOrEqual(2 ** 31 - 1);
    expect((limit + limit * 2 ** -23) * tiles).toBeGreaterThan(2 ** 31 - 1);
  }
});

test('adds fixed point with ties to even, clamps and counts', () => {
  const output = Float32Array.of(
    0.5,
    1.5,
    -2.5,
    99,
    1e9,
    -1e9,
    Number.NaN,
    99,
    Number.POSITIVE_INFINITY,
    1,
    1,
    99,
  );
  const partial = new Int32Array(9).fill(10);
  const saturated = addFixedPoint(output, 4, 3, Float32Array.of(1, 1, 1), 1000, partial);
  expect([...partial]).toEqual([10, 12, 8, 1010, -990, 10, 1010, 11, 11]);
  expect(saturated).toBe(4);
});

test('a partial sum goes back to the residual by the scale of its channel', () => {
  const residual = Float32Array.of(1, 2, 3, 4, 77);
  addPartial(residual, Int32Array.of(8, 16, -8, 1, 5), Float32Array.of(8, 0.5), 2);
  expect([...residual]).toEqual([2, 34, 2, 6, 77]);
});
