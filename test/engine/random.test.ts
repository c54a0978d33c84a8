import { describe, expect, it } from 'vitest';
import { philox, uniform } from '../../src/engine/random.ts';

const hex = (words: Uint32Array): string[] => [...words].map(w => w.toString(16).padStart(8, '0'));

describe('philox', () => {
  // Known answers of the Random123 distribution (kat_vectors, philox4x32 10).
  it.each([
    [
      [0, 0, 0, 0],
      [0, 0],
      ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8'],
    ],
    [
      [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
      [0xffffffff, 0xffffffff],
      ['408f276d', '41c83b0e', 'a20bc7c6', '6d5451fd'],
    ],
    [
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      [0xa4093822, 0x299f31d0],
      ['d16cfe09', '94fdcceb', '5001e420', '24126ea1'],
    ],
  ])('gives the known words for %j', (counter, key, answer) => {
    const words = Uint32Array.from(counter);
    philox(words, key[0]!, key[1]!);
    expect(hex(words)).toEqual(answer);
  });
});

describe('uniform', () => {
  it('is of [0, 1), evenly spread, and not correlated from one counter or seed to the next', () => {
    const n = 100_000;
    const bins = new Float64Array(100);
    let sum = 0;
    let byCounter = 0;
    let bySeed = 0;
    let outside = 0;
    for (let i = 0; i < n; i++) {
      const u = uniform(5, i);
      if (!(u >= 0 && u < 1)) outside++;
      const bin = Math.floor(u * 100);
      bins[bin] = bins[bin]! + 1;
      sum += u;
      byCounter += (u - 0.5) * (uniform(5, i + 1) - 0.5);
      bySeed += (u - 0.5) * (uniform(6, i) - 0.5);
    }
    expect(outside).toBe(0);
    // Five standard deviations of each statistic of independent even numbers.
    expect(Math.abs(sum / n - 0.5)).toBeLessThan(5 * Math.sqrt(1 / 12 / n));
    expect(Math.abs(byCounter / n)).toBeLessThan(5 / 12 / Math.sqrt(n));
    expect(Math.abs(bySeed / n)).toBeLessThan(5 / 12 / Math.sqrt(n));
    const chi = bins.reduce((c, k) => c + (k - n / 100) ** 2 / (n / 100), 0);
    expect(chi).toBeLessThan(99 + 5 * Math.sqrt(2 * 99));
  });

  it('depends on the upper half of seeds and counters, and takes negative seeds', () => {
    const drawn = [
      uniform(1, 1),
      uniform(1 + 2 ** 32, 1),
      uniform(1, 1 + 2 ** 32),
      uniform(-1, 1),
      uniform(-2, 1),
    ];
    expect(new Set(drawn).size).toBe(drawn.length);
  });
});
