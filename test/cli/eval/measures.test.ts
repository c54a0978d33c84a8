import { expect, test } from 'vitest';
import { median } from '../../../src/cli/bench/alternate.ts';
import { promptOf } from '../../../src/cli/bench/passes.ts';
import { allEqual, clustersOf } from '../../../src/cli/eval/bits.ts';
import { argmax, equalTokens } from '../../../src/cli/eval/compare-tokens.ts';
import { compareGolden } from '../../../src/cli/eval/golden.ts';
import { firstCharacters, windowsOf } from '../../../src/cli/eval/perplexity.ts';

const golden = {
  arch: 'tiny',
  ids: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
  logits_every_8: [[0, 1, 2]],
  argmax: [0, 0, 0, 0, 0, 0, 0, 2, 1, 1],
  greedy: [5, 6],
};
/** Ten rows; the eighth is given, the others say token 0. */
const rowsWith = (eighth: number[]): Float32Array[] =>
  golden.ids.map((_, i) => Float32Array.from(i === 7 ? eighth : [9, 8, 7]));

test('golden values: the largest error, the argmax of every position, the continuation', () => {
  const rows = rowsWith([0.25, 1, 2]);
  expect(compareGolden(golden, rows, [5, 6])).toEqual({
    largestError: 0.25,
    equalArgmax: 0.8,
    greedyEqual: true,
  });
  expect(compareGolden(golden, rows, [5]).greedyEqual).toBe(false);
});

test('a logit that is not a number is no small error', () => {
  const { largestError } = compareGolden(golden, rowsWith([Number.NaN, 1, 2]), []);
  expect(largestError).toBe(Number.POSITIVE_INFINITY);
  expect(() => compareGolden(golden, rowsWith([1]), [])).toThrow(/vocabulary of 3/);
});

test('bits: every count, uneven shares, more threads', () => {
  expect(clustersOf([1, 3])).toEqual([
    { devices: 1, threads: 1 },
    { devices: 3, threads: 1 },
    { devices: 3, threads: 1, shares: [1, 2, 3] },
    { devices: 1, threads: 2 },
    { devices: 3, threads: 2 },
  ]);
  expect(clustersOf([1])).toEqual([
    { devices: 1, threads: 1 },
    { devices: 1, threads: 2 },
  ]);
});

test('bits are equal within a weight format, and nothing is no proof', () => {
  const row = { weights: 'w4' as const, cluster: '', logits: 'x', tokens: 'y' };
  expect(allEqual([row, row, { ...row, weights: 'bf16', logits: 'z' }])).toBe(true);
  expect(allEqual([row, { ...row, logits: 'z' }])).toBe(false);
  expect(allEqual([row, { ...row, tokens: 'z' }])).toBe(false);
  expect(allEqual([])).toBe(false);
});

test('windows and characters of a perplexity', () => {
  expect(windowsOf([1, 2, 3, 4, 5, 6, 7], { windows: 2, window: 2 })).toEqual([
    [1, 2, 3],
    [4, 5, 6],
  ]);
  expect(() => windowsOf([1, 2], { windows: 1, window: 2 })).toThrow(/3 are needed/);
  expect(firstCharacters('a😀bc', 3)).toBe('a😀b');
  expect(firstCharacters('ab', 3)).toBe('ab');
});

test('small measures', () => {
  expect(argmax(Float32Array.of(1, 3, 3, 2))).toBe(1);
  expect(equalTokens([1, 2], [1, 2, 3])).toBe(false);
  expect(median([3, 1, 2])).toBe(2);
  expect(median([4, 1, 2, 3])).toBe(2.5);
  expect(promptOf(16, 1)).not.toEqual(promptOf(16, 2));
  expect(promptOf(2000, 5).every(id => id >= 10 && id < 400)).toBe(true);
});
