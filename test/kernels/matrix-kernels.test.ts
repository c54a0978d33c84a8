import { describe, expect, it } from 'vitest';
import { addon, floatBits, machineVariants, POISON, randomFloats, randomSource } from './addon-under-test.ts';
import { type MadePanel, makeBf16, makeW4 } from './panels.ts';

const EPSILON = 2 ** -24;
const MOST_TOKENS = 16;
const variants = machineVariants();

type Call = typeof addon.testBf16;
/** The w4 product with activations of 8 or 4 bits. */
const w4 =
  (bits: 8 | 4): Call =>
  (kernel, panel, blocks, columns, x, tokens, out) =>
    addon.testW4(kernel, panel, blocks, columns, x, tokens, bits, out);

/** Runs one matrix product into poisoned memory with a guard behind it. */
function product(
  call: Call,
  kernel: string,
  panel: MadePanel,
  x: Float32Array,
  tokens: number,
): Float32Array {
  const rows = panel.weights.length;
  const columns = panel.weights[0]?.length ?? 0;
  const out = new Float32Array(tokens * rows + 16).fill(POISON);
  call(kernel, panel.bytes, rows / 16, columns, x, tokens, out);
  expect(out.subarray(tokens * rows).every(value => value === Math.fround(POISON))).toBe(true);
  return out.subarray(0, tokens * rows);
}

/** Rows of x, [tokens, columns], as the kernels see them: steps times their scale; in double precision. */
function quantized(x: Float32Array, columns: number, bits: 8 | 4): Float64Array {
  const out = new Float64Array(x.length);
  for (let row = 0; row < x.length; row += columns) {
    const scale = new Float32Array(columns / 32);
    const q = new Int8Array(columns);
    addon.testQuantize(
      'reference',
      x.slice(row, row + columns),
      bits,
      q,
      scale,
      new Int32Array(columns / 32),
    );
    q.forEach((value, i) => {
      out[row + i] = value * scale[Math.floor(i / 32)]!;
    });
  }
  return out;
}

/** Every output is within the bound that its own terms give: `roundings` of the sum of magnitudes. */
function expectNear(
  out: Float32Array,
  panel: MadePanel,
  x: Float64Array,
  tokens: number,
  roundings: number,
): void {
  const rows = panel.weights.length;
  const columns = panel.weights[0]!.length;
  for (let t = 0; t < tokens; t++)
    for (let row = 0; row < rows; row++) {
      let exact = 0;
      let magnitude = 0;
      panel.weights[row]!.forEach((w, k) => {
        const term = w * x[t * columns + k]!;
        exact += term;
        magnitude += Math.abs(term);
      });
      const error = Math.abs(out[t * rows + row]! - exact);
      expect(error, `token ${t} row ${row}`).toBeLessThanOrEqual(roundings * EPSILON * magnitude + 1e-40);
    }
}

const COLUMNS = [32, 64, 96, 128, 224, 544];
const ROWS = [16, 32, 48, 80, 112, 128];

it('runs at least the reference', () => {
  expect(variants).toContain('reference');
});

describe.each(variants)('%s', kernel => {
  it.each(COLUMNS)(
    'multiplies w4 panels of %i columns like the reference, for any number of tokens',
    columns => {
      const random = randomSource(columns);
      for (const rows of ROWS) {
        const panel = makeW4(
          rows,
          columns,
          () => Math.floor(random() * 16),
          () => random() * 0.02 - 0.01,
        );
        const x = randomFloats(random, MOST_TOKENS * columns, 3);
        for (let tokens = 0; tokens <= MOST_TOKENS; tokens++) {
          const out = product(w4(8), kernel, panel, x, tokens);
          const expected = product(w4(8), 'reference', panel, x, tokens);
          expect(floatBits(out)).toEqual(floatBits(expected));
        }
        for (const bits of [8, 4] as const) {
          const out = product(w4(bits), kernel, panel, x, 3);
          expect(floatBits(out)).toEqual(floatBits(product(w4(bits), 'reference', panel, x, 3)));
          expectNear(out, panel, quantized(x, columns, bits), 3, columns / 32 + 2);
        }
      }
    },
  );

  it.each(COLUMNS)(
    'multiplies bf16 panels of %i columns like the reference, for any number of tokens',
    columns => {
      const random = randomSource(columns + 1);
      for (const rows of ROWS) {
        const panel = makeBf16(rows, columns, () => random() * 2 - 1);
        const x = randomFloats(random, MOST_TOKENS * columns, 3);
        for (const tokens of [0, 1, 2, 3, 4, 5, 7, 8, 9, 11, 13, 15, 16]) {
          const out = product(addon.testBf16, kernel, panel, x, tokens);
          const expected = product(addon.testBf16, 'reference', panel, x, tokens);
          expect(floatBits(out)).toEqual(floatBits(expected));
        }
        const out = product(addon.testBf16, kernel, panel, x, 3);
        expectNear(out, panel, Float64Array.from(x), 3, columns + 1);
      }
    },
  );

  it.each<[string, (row: number, column: number) => number, () => number]>([
    ['only the lowest nibble', () => 0, () => 0.01],
    ['only the highest nibble', () => 15, () => 0.01],
    ['both extremes', (row, column) => ((row + column) % 2 ? 15 : 0), () => 0.01],
    ['scales of zero', () => 13, () => 0],
    ['negative scales', () => 13, () => -0.5],
    ['the largest scale', () => 15, () => 65504],
    ['the smallest scale', () => 15, () => 2 ** -24],
    ['an infinite scale', () => 15, () => Number.POSITIVE_INFINITY],
  ])('multiplies w4 panels with %s like the reference', (_, nibble, scale) => {
    const panel = makeW4(32, 96, nibble, scale);
    const ends = Float32Array.from({ length: 5 * 96 }, (_, i) => (i % 3 ? 1 : -1) * 100);
    for (const x of [ends, new Float32Array(5 * 96), new Float32Array(5 * 96).fill(1e-40)]) {
      const out = product(w4(8), kernel, panel, x, 5);
      expect(floatBits(out)).toEqual(floatBits(product(w4(8), 'reference', panel, x, 5)));
    }
  });

  it('keeps a NaN or an infinity in its own token', () => {
    const panel = makeW4(
      16,
      64,
      (row, column) => (row * 7 + column) % 16,
      () => 0.01,
    );
    const random = randomSource(9);
    const clean = randomFloats(random, 3 * 64);
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
      const x = clean.slice();
      x[64 + 40] = bad;
      const out = product(w4(8), kernel, panel, x, 3);
      const expected = product(w4(8), kernel, panel, clean, 3);
      expect(out.subarray(16, 32).every(value => !Number.isFinite(value))).toBe(true);
      expect(floatBits(out.subarray(0, 16))).toEqual(floatBits(expected.subarray(0, 16)));
      expect(floatBits(out.subarray(32))).toEqual(floatBits(expected.subarray(32)));
    }
  });
});
