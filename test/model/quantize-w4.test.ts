import fc from 'fast-check';
import { expect, test } from 'vitest';
import { quantizeGroup } from '../../src/model/quantize-w4.ts';
import { halfToFloat } from '../../src/pack/number-formats.ts';
import { randomNumbers } from './small-checkpoint.ts';

function roundTrip(values: Float32Array): { out: number[]; error: number; scale: number } {
  const nibbles = new Uint8Array(32);
  const scale = halfToFloat(quantizeGroup(values, 0, nibbles));
  const out = [...nibbles].map(nibble => (nibble - 8) * scale);
  const error = out.reduce((sum, value, k) => sum + (value - values[k]!) ** 2, 0);
  for (const nibble of nibbles) expect(nibble).toBeLessThan(16);
  return { out, error, scale };
}

test('a group of zeros has scale 0 and nibbles 8', () => {
  const nibbles = new Uint8Array(32);
  expect(quantizeGroup(new Float32Array(32), 0, nibbles)).toBe(0);
  expect(nibbles).toEqual(new Uint8Array(32).fill(8));
});

test('weights that are steps of a scale come back as they were, either sign', () => {
  for (const sign of [1, -1]) {
    const values = Float32Array.from({ length: 32 }, (_, k) => sign * 0.125 * ((k % 16) - 8));
    expect(roundTrip(values).out).toEqual([...values]);
  }
});

test('the error is at most that of rounding to sevenths of the largest weight', () => {
  fc.assert(
    fc.property(
      fc.array(fc.float({ min: -100, max: 100, noNaN: true }), { minLength: 32, maxLength: 32 }),
      fc.double({ min: 1e-2, max: 100, noNaN: true }),
      (raw, factor) => {
        const values = Float32Array.from(raw, x => x * factor);
        const most = Math.max(...values.map(Math.abs));
        fc.pre(most > 1e-2); // below, a half is a coarse scale
        // Each weight is at most half a step of most / 7 away; the scale is rounded to 11 bits, which moves up to 8 steps.
        expect(roundTrip(values).error).toBeLessThanOrEqual(32 * (most / 14 + (8 * most) / 7 / 2048) ** 2);
      },
    ),
    { numRuns: 300, seed: 1 },
  );
});

test('on normal-like weights the search beats plain rounding', () => {
  const next = randomNumbers(3);
  let searched = 0;
  let plain = 0;
  for (let group = 0; group < 500; group++) {
    const values = Float32Array.from({ length: 32 }, next);
    searched += roundTrip(values).error;
    const scale = Math.max(...values.map(Math.abs)) / 7;
    for (const value of values) plain += (Math.round(value / scale) * scale - value) ** 2;
  }
  expect(searched).toBeLessThan(0.85 * plain);
});

test('weights past the range of a half do not become infinite', () => {
  const { out } = roundTrip(new Float32Array(32).fill(3e38));
  for (const value of out) expect(Number.isFinite(value)).toBe(true);
});
