import { describe, expect, it } from 'vitest';
import { type LogitMath, SCRIPT_LOGIT_MATH } from '../../src/kernels/logit-math.ts';
import { createNativeBackend } from '../../src/kernels/native-backend.ts';
import { addon, floatBits, machineVariants, randomFloats, randomSource } from './addon-under-test.ts';

const variants = machineVariants();
const SIZES = [0, 1, 2, 3, 7, 15, 16, 17, 31, 33, 1023, 1024, 1025, 5000];

/** Logit math of a kernel; the pool is closed behind `use`. */
function withMath(kernel: string, use: (math: LogitMath) => void): void {
  const backend = createNativeBackend(addon, { threads: 1, kernel });
  try {
    use(backend.logitMath);
  } finally {
    backend.close();
  }
}

describe('greatest', () => {
  const maths: [string, LogitMath][] = [['script', SCRIPT_LOGIT_MATH]];
  withMath('reference', native => maths.push(['native', native]));

  it.each(maths)('%s: finds the first of the greatest, wherever it is', (_, math) => {
    const random = randomSource(7);
    for (const size of SIZES.slice(1)) {
      const logits = randomFloats(random, size, 4);
      for (const at of [0, size >> 1, size - 1, Math.floor(random() * size)]) {
        const row = logits.slice();
        row[at] = 9;
        row.fill(9, Math.min(size - 1, at + 3));
        expect(math.greatest(row)).toBe(Math.min(at, size - 1));
      }
    }
  });

  it.each(maths)('%s: says where what is not a number is, and that there is none', (_, math) => {
    const row = new Float32Array(40).fill(-2);
    row[33] = Number.NaN;
    expect(math.greatest(row)).toBe(33);
    row[33] = Number.POSITIVE_INFINITY;
    expect(math.greatest(row)).toBe(33);
    expect(math.greatest(row.fill(Number.NEGATIVE_INFINITY))).toBe(-1);
    expect(math.greatest(new Float32Array(0))).toBe(-1);
  });
});

describe.each(variants)('weigh by %s', kernel => {
  it('gives the exponentials like the reference, near the exact ones, and touches nothing behind them', () => {
    const random = randomSource(3);
    for (const size of SIZES)
      for (const inverse of [1, 0.5, 3.3, 1e30]) {
        const logits = randomFloats(random, size, 30);
        const max = logits.reduce((a, b) => Math.max(a, b), -31);
        const weights = new Float32Array(size + 5).fill(7);
        const expected = weights.slice();
        withMath(kernel, math => math.weigh(logits, max, inverse, weights));
        withMath('reference', math => math.weigh(logits, max, inverse, expected));
        expect(floatBits(weights)).toEqual(floatBits(expected));
        expect([...weights.subarray(size)]).toEqual([7, 7, 7, 7, 7]);
        logits.forEach((logit, i) => {
          const exact = Math.exp((logit - max) * inverse);
          expect(Math.abs(weights[i]! - exact)).toBeLessThanOrEqual(exact * 2e-5 + 1e-37);
        });
      }
  });
});

it('weighs in a script what the kernels weigh', () => {
  const logits = randomFloats(randomSource(5), 3000, 20);
  const [script, native] = [new Float32Array(3000), new Float32Array(3000)];
  SCRIPT_LOGIT_MATH.weigh(logits, 20, 1.3, script);
  withMath('reference', math => math.weigh(logits, 20, 1.3, native));
  native.forEach((weight, i) => {
    expect(Math.abs(weight - script[i]!)).toBeLessThanOrEqual(weight * 2e-5 + 1e-27);
  });
});
