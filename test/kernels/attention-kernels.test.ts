import { describe, expect, it } from 'vitest';
import { addon, floatBits, machineVariants, POISON, randomFloats, randomSource } from './addon-under-test.ts';
import { type KvBits, KvPages } from './kv-pages.ts';
import { toHalf } from './number-formats.ts';

const EPSILON = 2 ** -24;
const PAGES = 8;
const variants = machineVariants();
const FORMATS: readonly KvBits[] = [4, 8, 16, 32];
const DIMS = [2, 6, 14, 16, 18, 20, 32, 40, 64, 80, 128];
/** Positions, the first that is looked at, soft cap. */
const LOOKS = [
  [1, 0, 0],
  [2, 1, 0],
  [15, 0, 3],
  [16, 7, 0],
  [17, 16, 0],
  [33, 2, 0],
  [64, 40, 5],
  [97, 0, 0],
  [97, 33, 0.5],
  [256, 31, 0],
] as const;

const table = (positions: number) =>
  Int32Array.from({ length: Math.ceil(positions / 32) }, (_, i) => (i * 5 + 3) % PAGES);

const poisoned = (count: number) => new Float32Array(count).fill(POISON);

/** Attention into poisoned memory with a guard behind it. */
function attend(
  kernel: string,
  kv: KvPages,
  q: Float32Array,
  heads: number,
  [positions, first, cap]: readonly [number, number, number],
): Float32Array {
  const out = poisoned(heads * kv.dim + 16);
  addon.testAttention(
    kernel,
    kv.bits,
    q,
    heads,
    kv.dim,
    kv.bytes,
    table(positions),
    positions,
    first,
    cap,
    out,
  );
  expect(out.subarray(heads * kv.dim).every(value => value === Math.fround(POISON))).toBe(true);
  return out.subarray(0, heads * kv.dim);
}

function filledPages(bits: KvBits, dim: number, random: () => number, size = 2): KvPages {
  const pages = new KvPages(bits, dim, PAGES);
  for (let page = 0; page < PAGES; page++)
    for (let at = 0; at < 32; at++)
      pages.store('reference', page, at, randomFloats(random, dim, size), randomFloats(random, dim, size));
  return pages;
}

describe.each(variants)('%s', kernel => {
  it.each(DIMS)('stores keys and values of %i channels in nibbles like the reference', dim => {
    const random = randomSource(dim);
    for (const bits of [4, 8] as const)
      for (const size of [1, 1e-3, 1e-9, 1e4, 1e6, 0]) {
        const [mine, expected] = [new KvPages(bits, dim, 1), new KvPages(bits, dim, 1)];
        for (let at = 0; at < 32; at++) {
          const [key, value] = [randomFloats(random, dim, size), randomFloats(random, dim, size)];
          if (at % 7 === 3) key[Math.floor(random() * dim)] = [NaN, Infinity, -Infinity][at % 3]!;
          if (at % 7 === 5) value[Math.floor(random() * dim)] = [Infinity, NaN, -Infinity][at % 3]!;
          mine.store(kernel, 0, at, key, value);
          expected.store('reference', 0, at, key, value);
        }
        expect(mine.bytes).toEqual(expected.bytes);
      }
  });

  it.each([4, 8] as const)('keeps the neighbours of what it stores in %i bits, and is near it', bits => {
    const random = randomSource(bits);
    const dim = 40;
    const pages = new KvPages(bits, dim, 1);
    const stored = Array.from({ length: 32 }, () => [
      randomFloats(random, dim, 3),
      randomFloats(random, dim, 3),
    ]);
    for (const at of [...stored.keys()].sort((a, b) => ((a * 7) % 32) - ((b * 7) % 32)))
      pages.store(kernel, 0, at, stored[at]![0]!, stored[at]![1]!);
    const worst = 3 / (bits === 4 ? 7 : 127);
    let apart = 0;
    stored.forEach(([key, value], at) => {
      for (let d = 0; d < dim; d++) {
        expect(Math.abs(pages.key(0, at, d) - key![d]!)).toBeLessThanOrEqual(worst);
        expect(Math.abs(pages.value(0, at, d) - value![d]!)).toBeLessThanOrEqual(worst);
        if (pages.key(0, at, d) !== pages.value(0, at, d)) apart++;
      }
    });
    expect(apart).toBeGreaterThan(32 * dim * 0.8);
  });

  it.each(DIMS)('attends with heads of %i channels like the reference', dim => {
    const random = randomSource(dim);
    for (const bits of FORMATS) {
      const kv = filledPages(bits, dim, random);
      for (const heads of [1, 2, 3, 4, 5, 8])
        for (const look of LOOKS) {
          const q = randomFloats(random, heads * dim, 1);
          const out = attend(kernel, kv, q, heads, look);
          expect(floatBits(out)).toEqual(floatBits(attend('reference', kv, q, heads, look)));
          if (heads === 3) expectNear(out, kv, q, heads, look);
        }
    }
  });

  it('takes keys and values that are not numbers like the reference', () => {
    const random = randomSource(5);
    for (const bits of FORMATS) {
      const kv = filledPages(bits, 32, random);
      for (let i = 0; i < kv.bytes.length; i += 5) kv.bytes[i] = Math.floor(random() * 256);
      const q = randomFloats(random, 3 * 32, 1);
      for (const positions of [1, 5, 16, 20, 32, 50]) {
        const out = attend(kernel, kv, q, 3, [positions, 0, 0]);
        expect(floatBits(out)).toEqual(floatBits(attend('reference', kv, q, 3, [positions, 0, 0])));
      }
    }
  });

  it('a key or value that is not finite reaches every output of the head that looks at it, and no other', () => {
    const random = randomSource(6);
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
      const kv = filledPages(4, 32, random);
      const value = randomFloats(random, 32);
      value[3] = bad;
      kv.store(kernel, table(1)[0]!, 9, randomFloats(random, 32), value);
      const q = randomFloats(random, 32, 1);
      expect([...attend(kernel, kv, q, 1, [10, 0, 0])].every(Number.isNaN)).toBe(true);
      expect([...attend(kernel, kv, q, 1, [9, 0, 0])].every(Number.isFinite)).toBe(true);
      expect([...attend(kernel, kv, q, 1, [33, 10, 0])].every(Number.isFinite)).toBe(true);
    }
  });
});

/** Attention in double precision over what is stored; within what rounding and the 8-bit weights of values may change. */
function expectNear(
  out: Float32Array,
  kv: KvPages,
  q: Float32Array,
  heads: number,
  [positions, first, cap]: readonly [number, number, number],
): void {
  const pages = table(positions);
  const { dim } = kv;
  for (let h = 0; h < heads; h++) {
    const query =
      kv.bits <= 8 ? quantizedHead(q.subarray(h * dim, (h + 1) * dim)) : q.slice(h * dim, (h + 1) * dim);
    const scores = Array.from({ length: positions - first }, (_, i) => {
      let sum = 0;
      for (let d = 0; d < dim; d++) sum += query[d]! * kv.key(pages[(first + i) >> 5]!, (first + i) % 32, d);
      return cap === 0 ? sum : cap * Math.tanh(sum / cap);
    });
    const most = Math.max(...scores);
    const p = scores.map(score => Math.exp(score - most));
    const total = p.reduce((a, b) => a + b, 0);
    // An error of dim roundings of |q| |k| <= 2 * dim in a score moves its weight by as much, relatively.
    const relative = (2 * dim * dim + positions + 40) * EPSILON;
    for (let d = 0; d < dim; d++) {
      const value = (i: number) => kv.value(pages[(first + i) >> 5]!, (first + i) % 32, d);
      const exact = p.reduce((sum, weight, i) => sum + weight * value(i), 0) / total;
      const rounding = kv.bits <= 8 ? weightRounding(kv, pages, p, first, d) / total : 0;
      expect(Math.abs(out[h * dim + d]! - exact)).toBeLessThanOrEqual(4 * relative + 1.01 * rounding);
    }
  }
}

/** What rounding weight times scale to 8 bits in blocks of 32 positions can change in channel d. */
function weightRounding(kv: KvPages, pages: Int32Array, p: number[], first: number, d: number): number {
  let sum = 0;
  for (let block = first >> 5; block * 32 < first + p.length; block++) {
    const from = Math.max(first, block * 32) - first;
    const to = Math.min(p.length, block * 32 + 32 - first);
    let most = 0;
    let steps = 0;
    for (let i = from; i < to; i++) {
      most = Math.max(most, Math.abs(p[i]! * kv.valueScale(pages[block]!, (first + i) % 32)));
      steps += Math.abs(kv.valueStep(pages[block]!, (first + i) % 32, d));
    }
    sum += (steps * most) / 254;
  }
  return sum;
}

/** A query as the nibble kernels see it: int8 times a scale for 32 channels. */
function quantizedHead(q: Float32Array): Float64Array {
  const groups = Math.ceil(q.length / 32);
  const x = new Float32Array(groups * 32);
  x.set(q);
  const steps = new Int8Array(x.length);
  const scale = new Float32Array(groups);
  addon.testQuantize('reference', x, 8, steps, scale, new Int32Array(groups));
  return Float64Array.from(q, (_, i) => steps[i]! * scale[Math.floor(i / 32)]!);
}

it('rounds a scale to the nearest half', () => {
  const pages = new KvPages(8, 32, 1);
  for (const most of [1, 1.0001, 3.3, 127.9, 8e-7, 5e5 / 128]) {
    const value = new Float32Array(32).fill(most);
    pages.store('reference', 0, 0, value, value);
    expect(pages.valueScale(0, 0)).toBe(new KvPages(8, 32, 1).half(toHalf(Math.fround(most) / -128)));
  }
});
