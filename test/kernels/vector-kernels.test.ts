import { describe, expect, it } from 'vitest';
import { addon, floatBits, machineVariants, POISON, randomFloats, randomSource } from './addon-under-test.ts';

const EPSILON = 2 ** -24;
const variants = machineVariants();
const SIZES = [1, 2, 3, 4, 5, 6, 7, 8, 15, 16, 17, 31, 32, 33, 47, 61, 97, 127, 128, 129, 257];
const INFINITY = Number.POSITIVE_INFINITY;
const SPECIAL = [0, -0, 1e-45, -1e-40, 1e38, -3.4e38, INFINITY, -INFINITY, Number.NaN, 1, -1, 0.5, 1.5, 2.5];

const poisoned = (count: number) => new Float32Array(count).fill(POISON);

/** Random values with special ones among them. */
function mixed(random: () => number, count: number, size: number): Float32Array {
  const out = randomFloats(random, count, size);
  for (let i = 0; i < count; i += 5) out[i] = SPECIAL[Math.floor(random() * SPECIAL.length)]!;
  return out;
}

describe.each(variants)('%s', kernel => {
  it.each([8, 4] as const)('quantizes to %i bits like the reference, and within half a step', bits => {
    const random = randomSource(1);
    for (const groups of [0, 1, 2, 3, 7]) {
      for (const size of [1, 1e-30, 1e-31, 1e-36, 1e-44, 1e30, 3e38]) {
        const x = randomFloats(random, groups * 32, size);
        const [q, expectedQ] = [new Int8Array(x.length + 1).fill(99), new Int8Array(x.length + 1).fill(99)];
        const [scale, expectedScale] = [poisoned(groups + 1), poisoned(groups + 1)];
        const [bias, expectedBias] = [
          new Int32Array(groups + 1).fill(77),
          new Int32Array(groups + 1).fill(77),
        ];
        addon.testQuantize(kernel, x, bits, q, scale, bias);
        addon.testQuantize('reference', x, bits, expectedQ, expectedScale, expectedBias);
        expect(q).toEqual(expectedQ);
        expect(floatBits(scale)).toEqual(floatBits(expectedScale));
        expect(bias).toEqual(expectedBias);
        x.forEach((value, i) => {
          const group = Math.floor(i / 32);
          const alike = bits === 8 ? 128 : 32; // values with one scale
          const from = i - (i % alike);
          const most = x.subarray(from, from + alike).reduce((m, v) => Math.max(m, Math.abs(v)), 0);
          const step = most / (bits === 8 ? 127 : 8);
          const least = size < 1e-30 ? size : 0; // under 2^-100 everything is zero
          // 8 steps are cut off at one side; a fitted scale moves each of q steps.
          const ends = bits === 4 && q[i] === 7 ? 1 : 0.5;
          const fitted = bits === 4 ? 8 * Math.abs(Math.abs(scale[group]!) - step) : 0;
          const off = Math.abs(q[i]! * scale[group]! - value);
          expect(off).toBeLessThanOrEqual(step * (ends + 1e-4) + fitted + least);
          if (fitted > 0.7 * step) expect(size).toBeLessThan(1e-30);
        });
      }
    }
  });

  it.each([8, 4] as const)(
    'quantizes zeros to zeros in %i bits, what is not finite reaches the scale',
    bits => {
      const alike = bits === 8 ? 128 : 32; // values with one scale
      const x = new Float32Array(alike * 4);
      x[alike] = Number.NaN;
      x[alike + 5] = INFINITY;
      x[2 * alike + 9] = -INFINITY;
      x[4 * alike - 1] = -2;
      const q = new Int8Array(x.length);
      const expectedQ = new Int8Array(x.length);
      const scale = new Float32Array(x.length / 32);
      const bias = new Int32Array(x.length / 32);
      addon.testQuantize(kernel, x, bits, q, scale, bias);
      addon.testQuantize('reference', x, bits, expectedQ, scale.slice(), bias.slice());
      expect(q).toEqual(expectedQ);
      const last = bits === 8 ? Math.fround(2 / 127) : 2 / 8;
      const expected = [0, Number.NaN, INFINITY, last].flatMap(value => new Array(alike / 32).fill(value));
      expect([...scale].map(Math.abs)).toEqual(expected);
      expect(bias[0]).toBe(0);
      expect(bias.at(-1)).toBe(8 * (bits === 8 ? 127 : 8));
      expect(q.at(-1)).toBe(bits === 8 ? -127 : -8);
    },
  );

  it.each(SIZES)('norms %i channels like the reference, and near the exact result', n => {
    const random = randomSource(n);
    const x = randomFloats(random, n, 4);
    const weight = randomFloats(random, n, 2);
    const padded = Math.ceil(n / 32) * 32;
    const [y, expected] = [poisoned(padded + 8), poisoned(padded + 8)];
    addon.testRmsnorm(kernel, x, weight, 1e-5, y);
    addon.testRmsnorm('reference', x, weight, 1e-5, expected);
    expect(floatBits(y)).toEqual(floatBits(expected));
    const mean = x.reduce((sum, value) => sum + value * value, 0) / n;
    x.forEach((value, i) => {
      const exact = (value / Math.sqrt(mean + 1e-5)) * weight[i]!;
      expect(Math.abs(y[i]! - exact)).toBeLessThanOrEqual((n / 16 + 12) * EPSILON * Math.abs(exact));
    });
    expect(y.subarray(n, padded).every(value => value === 0)).toBe(true);
    expect(y[padded]).toBe(Math.fround(POISON));
  });

  it.each([1, 2, 7, 8, 16, 17, 32, 40, 64])(
    'rotates %i pairs like the reference, and near the exact result',
    half => {
      const random = randomSource(half);
      const frequencies = Float32Array.from({ length: half }, (_, i) => 10000 ** (-i / half));
      for (const position of [0, 1, 2, 3, 100, 4095, 131071]) {
        const x = randomFloats(random, 2 * half);
        const [out, expected] = [x.slice(), x.slice()];
        addon.testRope(kernel, out, position, frequencies, 0.125);
        addon.testRope('reference', expected, position, frequencies, 0.125);
        expect(floatBits(out)).toEqual(floatBits(expected));
        for (let i = 0; i < half; i++) {
          const angle = Math.fround(position * frequencies[i]!);
          const [a, b] = [x[i]!, x[i + half]!];
          const bound = 4 * EPSILON * (Math.abs(a) + Math.abs(b)) * 0.125;
          const left = (a * Math.cos(angle) - b * Math.sin(angle)) * 0.125;
          const right = (b * Math.cos(angle) + a * Math.sin(angle)) * 0.125;
          expect(Math.abs(out[i]! - left)).toBeLessThanOrEqual(bound);
          expect(Math.abs(out[i + half]! - right)).toBeLessThanOrEqual(bound);
        }
      }
    },
  );

  it('takes exponentials like the reference, and to the last bits of the exact ones', () => {
    const around = Float32Array.from({ length: 4001 }, (_, i) => (i - 2000) * 0.0437);
    const edges = Float32Array.of(-87, -87.00001, -86.99999, 88, 88.00001, 1e30, -1e30, 0, ...SPECIAL);
    for (const x of [around, edges, ...SIZES.map(n => randomFloats(randomSource(n), n, 20))]) {
      const [y, expected] = [poisoned(x.length + 1), poisoned(x.length + 1)];
      addon.testExp(kernel, x, y);
      addon.testExp('reference', x, expected);
      expect(floatBits(y)).toEqual(floatBits(expected));
      expect(y[x.length]).toBe(Math.fround(POISON));
      x.forEach((value, i) => {
        const exact = value < -87 ? 0 : Math.exp(Math.min(88, value));
        const error = Math.abs(y[i]! - exact) / (exact || 1);
        expect(Number.isNaN(value) ? Number.isNaN(error) : error <= 3 * EPSILON, `exp(${value})`).toBe(true);
      });
    }
  });

  it('rotates groups of 32 like the reference, and by the Hadamard matrix', () => {
    const random = randomSource(12);
    for (const groups of [0, 1, 2, 5]) {
      const x = mixed(random, groups * 32, 2);
      const [y, expected] = [x.slice(), x.slice()];
      addon.testHadamard(kernel, y);
      addon.testHadamard('reference', expected);
      expect(floatBits(y)).toEqual(floatBits(expected));
      const clean = randomFloats(random, groups * 32, 2);
      const rotated = clean.slice();
      addon.testHadamard(kernel, rotated);
      rotated.forEach((value, i) => {
        let sum = 0;
        for (let k = 0; k < 32; k++)
          sum += clean[i - (i % 32) + k]! * (-1) ** ((i % 32) & k).toString(2).replaceAll('0', '').length;
        expect(Math.abs(value - sum)).toBeLessThanOrEqual(5 * 64 * EPSILON);
      });
    }
  });

  it.each(SIZES)('gates %i columns like the reference, and near the exact result', n => {
    const random = randomSource(n);
    const gate = randomFloats(random, n, 30);
    const up = randomFloats(random, n, 3);
    const [h, expected] = [poisoned(n + 1), poisoned(n + 1)];
    addon.testSilu(kernel, gate, up, h);
    addon.testSilu('reference', gate, up, expected);
    expect(floatBits(h)).toEqual(floatBits(expected));
    gate.forEach((g, i) => {
      const exact = (g / (1 + Math.exp(-g))) * up[i]!;
      expect(Math.abs(h[i]! - exact)).toBeLessThanOrEqual(8 * EPSILON * Math.abs(exact));
    });
    const special = mixed(random, n, 90);
    const [odd, oddExpected] = [poisoned(n), poisoned(n)];
    addon.testSilu(kernel, special, up, odd);
    addon.testSilu('reference', special, up, oddExpected);
    expect(floatBits(odd)).toEqual(floatBits(oddExpected));
  });

  it.each(SIZES)('adds %i channels in fixed point like the reference, and counts what does not fit', n => {
    const random = randomSource(n);
    const v = mixed(random, n, 3e9);
    const scale = Float32Array.from({ length: n }, () => 2 ** (Math.floor(random() * 5) - 2));
    const limit = 536870880;
    const start = Int32Array.from({ length: n + 1 }, () => Math.floor((random() - 0.5) * 1e9));
    const [partial, expected] = [start.slice(), start.slice()];
    const saturated = addon.testFixed(kernel, v, scale, limit, partial);
    expect(addon.testFixed('reference', v, scale, limit, expected)).toBe(saturated);
    expect(partial).toEqual(expected);
    let bad = 0;
    v.forEach((value, i) => {
      const r = Math.fround(value * scale[i]!);
      if (!(Math.abs(r) <= limit)) bad++;
      const clamped = Number.isNaN(r) ? 0 : Math.max(-limit, Math.min(limit, r));
      const low = Math.floor(clamped);
      const even = clamped - low === 0.5 ? low + (low & 1) : Math.round(clamped);
      expect(partial[i]).toBe((start[i]! + even) | 0);
    });
    expect(saturated).toBe(bad);
    expect(partial[n]).toBe(start[n]);
  });

  it.each(SIZES)('adds a sum of %i channels to the residual like the reference', n => {
    const random = randomSource(n);
    const start = randomFloats(random, n + 1, 5);
    const partial = Int32Array.from({ length: n }, () => Math.floor((random() - 0.5) * 2 ** 32));
    const inverse = Float32Array.from({ length: n }, () => 2 ** -Math.floor(random() * 30));
    const residual = start.slice();
    addon.testResidual(kernel, residual, partial, inverse);
    const expected = start.map((value, i) =>
      i === n ? value : Math.fround(value + Math.fround(Math.fround(partial[i]!) * inverse[i]!)),
    );
    expect(floatBits(residual)).toEqual(floatBits(expected));
  });

  it('caps like the reference and like tanh, whatever comes', () => {
    const random = randomSource(12);
    for (const n of SIZES)
      for (const [cap, size] of [
        [30, 1],
        [50, 400],
        [3, 1e-3],
        [0.5, 1e30],
      ] as const) {
        const x = randomFloats(random, n, size);
        const [y, expected] = [x.slice(), x.slice()];
        addon.testSoftCap(kernel, y, cap);
        addon.testSoftCap('reference', expected, cap);
        expect(floatBits(y)).toEqual(floatBits(expected));
        x.forEach((value, i) => {
          expect(Math.abs(y[i]! - cap * Math.tanh(value / cap))).toBeLessThanOrEqual(cap * 2 ** -21);
        });
      }
    const special = Float32Array.from(SPECIAL);
    const same = special.slice();
    addon.testSoftCap(kernel, special, 7);
    addon.testSoftCap('reference', same, 7);
    expect(floatBits(special)).toEqual(floatBits(same));
  });

  it('has the GELU of its formula, like the reference', () => {
    const random = randomSource(13);
    for (const n of SIZES) {
      const gate = n % 2 ? mixed(random, n, 4) : randomFloats(random, n, 4);
      const up = randomFloats(random, n, 2);
      const [h, expected] = [poisoned(n + 1), poisoned(n + 1)];
      addon.testGelu(kernel, gate, up, h);
      addon.testGelu('reference', gate, up, expected);
      expect(floatBits(h)).toEqual(floatBits(expected));
      if (n % 2) continue;
      gate.forEach((x, i) => {
        const inner = Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3);
        const exact = 0.5 * x * (1 + Math.tanh(inner)) * up[i]!;
        expect(Math.abs(h[i]! - exact)).toBeLessThanOrEqual(2 ** -19);
      });
    }
  });
});
