import { expect, test } from 'vitest';
import { chooseTiling } from '../../src/model/cut-tiling.ts';
import { plainFeatures } from '../../src/pack/plain-shape.ts';

const base = { layers: 1, headDim: 64, context: 64, normEpsilon: 1e-5, ...plainFeatures(1, 64, []) };
const demo = { ...base, width: 512, queryHeads: 8, kvHeads: 4, ffnWidth: 1536, vocabulary: 8192 };
const llama1b = { ...base, width: 2048, queryHeads: 32, kvHeads: 8, ffnWidth: 8192, vocabulary: 128256 };

test('sizes divide evenly where they can, and no tile is much over 1 MiB', () => {
  expect(chooseTiling(demo)).toEqual({ partsPerKvHead: 1, ffnColumns: 128, headRows: 512 });
  const big = chooseTiling(llama1b);
  expect(big.partsPerKvHead).toBe(1);
  expect(8192 % big.ffnColumns).toBe(0);
  expect(big.ffnColumns * 3 * 2048 * 0.5625).toBeLessThanOrEqual(2 ** 20);
  expect(big.headRows * 2048 * 0.5625).toBeLessThanOrEqual(2 ** 20);
});

test.each([
  [1, 8, 4],
  [2, 4, 2],
  [2, 2, 1],
  [1, 2, 2],
  [3, 9, 3],
  [1, 6, 6],
])('%i KV heads of %i query heads are cut into %i parts', (kvHeads, queryHeads, parts) => {
  expect(chooseTiling({ ...demo, kvHeads, queryHeads }).partsPerKvHead).toBe(parts);
});

test('a tiny model has the smallest tiles', () => {
  expect(chooseTiling({ ...demo, width: 64, ffnWidth: 100, vocabulary: 70 })).toMatchObject({
    ffnColumns: 32,
    headRows: 16,
  });
});

test('what the user says is taken, or refused', () => {
  expect(chooseTiling(demo, { partsPerKvHead: 2, ffnColumns: 32 })).toEqual({
    partsPerKvHead: 2,
    ffnColumns: 32,
    headRows: 512,
  });
  for (const wrong of [
    { partsPerKvHead: 3 },
    { partsPerKvHead: 0 },
    { ffnColumns: 48 },
    { ffnColumns: -32 },
    { headRows: 8 },
    { headRows: 16.5 },
  ])
    expect(() => chooseTiling(demo, wrong)).toThrow(expect.objectContaining({ code: 'BAD_OPTION' }));
});
