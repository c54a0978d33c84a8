import fc from 'fast-check';
import { expect, test } from 'vitest';
import { addInto } from '../../src/allreduce/fixed-point.ts';

test('adds with wrap at 32 bits, and only `count` words', () => {
  const target = Int32Array.of(0x7fffffff, -0x80000000, 5, 6, 7, 8);
  addInto(target, Int32Array.of(1, -1, 10, 20, 30, 40), 5);
  expect([...target]).toEqual([-0x80000000, 0x7fffffff, 15, 26, 37, 8]);
});

test('the sum of any number of arrays does not depend on their order', () => {
  const words = 13;
  const array = fc.array(fc.integer(), { minLength: words, maxLength: words });
  fc.assert(
    fc.property(fc.array(array, { minLength: 1, maxLength: 15 }), fc.nat(), (arrays, turn) => {
      const sum = (order: number[][]): Int32Array => {
        const target = new Int32Array(words);
        for (const source of order) addInto(target, Int32Array.from(source), words);
        return target;
      };
      const cut = turn % arrays.length;
      expect(sum([...arrays.slice(cut), ...arrays.slice(0, cut)].reverse())).toEqual(sum(arrays));
      const exact = arrays.reduce((total, source) => total + BigInt(source[0]!), 0n);
      expect(sum(arrays)[0]).toBe(Number(BigInt.asIntN(32, exact)));
    }),
    { numRuns: 100 },
  );
});
