import { expect, test } from 'vitest';
import { exponential, MOST } from '../../src/kernels/exponential.ts';

test('agrees with Math.exp from -MOST to 0', () => {
  expect(exponential(0)).toBe(1);
  let worst = 0;
  for (let i = 0; i <= 100_000; i++) {
    const x = (-MOST * i) / 100_000;
    worst = Math.max(worst, Math.abs(exponential(x) / Math.exp(x) - 1));
  }
  expect(worst).toBeLessThan(1e-14);
});

test('never falls as x rises', () => {
  const values = Array.from({ length: 200_001 }, (_, i) => exponential(-MOST + (MOST * i) / 200_000));
  expect(values.findIndex((y, i) => i > 0 && y < values[i - 1]!)).toBe(-1);
});
