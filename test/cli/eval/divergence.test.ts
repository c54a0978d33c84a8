import { expect, it } from 'vitest';
import { Divergence } from '../../../src/cli/eval/divergence.ts';

it('is the loss and the divergence of given distributions', () => {
  const sums = new Divergence();
  const log = (...p: number[]) => Float32Array.from(p, value => Math.log(value) + 3);
  sums.add(log(0.5, 0.25, 0.25), 0, log(0.25, 0.5, 0.25));
  sums.add(log(0.25, 0.5, 0.25), 2, log(0.25, 0.5, 0.25));
  expect(sums.perplexity).toBeCloseTo(Math.exp((Math.log(2) + Math.log(4)) / 2), 5);
  expect(sums.divergence).toBeCloseTo((0.25 * Math.log(0.5) + 0.5 * Math.log(2)) / 2, 5);
});

it('is zero between equals, also with huge logits', () => {
  const sums = new Divergence();
  sums.add(Float32Array.of(900, -900, 0), 0, Float32Array.of(900, -900, 0));
  expect(sums.divergence).toBe(0);
  expect(sums.perplexity).toBe(1);
});
