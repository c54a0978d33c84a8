import { expect, test } from 'vitest';
import { frequenciesAt, LengthFrequencies, rotationSwitch } from '../../src/kernels/length-frequencies.ts';
import { power } from '../../src/kernels/power.ts';
import type { Rotation } from '../../src/pack/manifest.ts';

const plain: Rotation = { frequencies: [1, 0.1], magnitude: 1, beyond: null };
const long: Rotation = { ...plain, beyond: { type: 'frequencies', over: 8, frequencies: [0.5, 0.01] } };
const dynamic: Rotation = { ...plain, beyond: { type: 'dynamic', over: 8, theta: 100, factor: 2 } };

test('powers agree with Math.pow to a few units of the last place', () => {
  for (const base of [1e-6, 0.3, 0.7, 1, 1.5, 2, 1e4, 5e5, 1e12])
    for (const exponent of [-2.5, -1, -0.1, 0, 1e-3, 0.5, 1, 32 / 31, 3])
      expect(power(base, exponent) / base ** exponent).toBeCloseTo(1, 13);
});

test('lengths share rows where their frequencies are the same', () => {
  const lengths = Int32Array.of(3, 8, 9, 400);
  expect(new LengthFrequencies({ rotations: [plain] }).of(lengths)).toEqual({
    rows: Int32Array.of(0, 0, 0, 0),
    frequencies: Float64Array.of(1, 0.1),
  });
  expect(new LengthFrequencies({ rotations: [plain, long] }).of(lengths)).toEqual({
    rows: Int32Array.of(0, 0, 1, 1),
    frequencies: Float64Array.of(1, 0.1, 1, 0.1, 1, 0.1, 0.5, 0.01),
  });
  expect([...new LengthFrequencies({ rotations: [dynamic] }).of(lengths).rows]).toEqual([0, 0, 1, 2]);
});

test('dynamic: the base grows by the formula of NTK scaling', () => {
  expect(frequenciesAt(dynamic, 8)).toEqual([1, 0.1]);
  const base = 100 * ((2 * 20) / 8 - 1) ** 2;
  expect(frequenciesAt(dynamic, 20)[0]).toBe(1);
  expect(frequenciesAt(dynamic, 20)[1]! * base ** 0.5).toBeCloseTo(1, 6);
});

test('only frequencies of long sequences make keys anew', () => {
  expect(rotationSwitch({ rotations: [plain, dynamic] })).toBe(Number.POSITIVE_INFINITY);
  expect(rotationSwitch({ rotations: [plain, long] })).toBe(8);
});
