import { expect, test } from 'vitest';
import {
  alternate,
  difference,
  measurement,
  median,
  samples,
  scaled,
} from '../../../src/cli/bench/alternate.ts';

test('programs run in turn, and the first round does not count', async () => {
  const order: string[] = [];
  let round = 0;
  const { a, b } = await alternate(3, {
    a: async () => {
      order.push('a');
      return ++round;
    },
    b: async () => {
      order.push('b');
      return 10 * round;
    },
  });
  expect(order.join('')).toBe('abababab');
  expect(a.values).toEqual([2, 3, 4]);
  expect(b.values).toEqual([20, 30, 40]);
});

test('a signal ends it before the next program', async () => {
  const stop = new AbortController();
  let ran = 0;
  const b = async () => {
    stop.abort(new Error('enough'));
    return 0;
  };
  const running = alternate(5, { a: async () => ++ran, b }, stop.signal);
  await expect(running).rejects.toThrow('enough');
  expect(ran).toBe(1);
});

test('medians and quartiles lie between neighbours where they fall there', () => {
  expect(median([3])).toBe(3);
  expect(median([4, 1, 3, 2])).toBe(2.5);
  expect(samples([5, 1, 2, 4, 3])).toEqual({ median: 3, quartiles: [2, 4], values: [5, 1, 2, 4, 3] });
});

test('a ratio is of the round with the median ratio', () => {
  const measured = scaled(samples([1, 9, 2]), 10);
  const limit = difference(samples([50, 70, 110]), samples([10, 10, 10]));
  expect(measurement(measured, limit, 'tokens/s')).toEqual({
    measured: 10,
    limit: 40,
    ratio: 0.25,
    unit: 'tokens/s',
    spread: { measured: [15, 55], limit: [50, 80] },
  });
});
