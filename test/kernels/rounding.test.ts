import { describe, expect, it } from 'vitest';
import { triangleBytes } from '../../src/kernels/addon.ts';
import { halfToFloat } from '../../src/pack/number-formats.ts';
import { addon } from './addon-under-test.ts';

/** Numbers of -1 to 1, the same for a seed. */
function drawn(count: number, seed: number): Float32Array {
  let state = seed;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
}

/** Inputs whose channels depend on each other and differ in size. */
function correlatedInputs(tokens: number, columns: number): Float32Array {
  const source = drawn(tokens * columns, 7);
  const x = new Float32Array(tokens * columns);
  for (let t = 0; t < tokens; t++)
    for (let k = 0; k < columns; k++) {
      const at = t * columns;
      x[at + k] =
        (source[at + k]! + 0.8 * source[at + ((k * 5) % columns)]! + 0.5 * source[at]!) * (1 + (k % 7));
    }
  return x;
}

function held(view: Float32Array): ArrayBuffer {
  const memory = addon.allocate(view.byteLength);
  new Float32Array(memory).set(view);
  return memory;
}

/** [n, n], plain sums in double precision, both triangles. */
function denseProducts(x: Float32Array, n: number): Float64Array {
  const h = new Float64Array(n * n);
  for (let t = 0; t < x.length / n; t++)
    for (let i = 0; i < n; i++) for (let k = 0; k < n; k++) h[i * n + k]! += x[t * n + i]! * x[t * n + k]!;
  return h;
}

/** The upper triangle of [n, n], of panels of 32 columns. */
function unfolded(triangle: ArrayBuffer, n: number): Float64Array {
  const out = new Float64Array(n * n);
  let at = 0;
  for (let first = 0; first < n; first += 32)
    for (let i = 0; i < first + 32; i++, at += 32) {
      const row = new Float64Array(triangle, at * 8, 32);
      for (let k = Math.max(i, first); k < first + 32; k++) out[i * n + k] = row[k - first]!;
    }
  return out;
}

async function round(x: Float32Array, weights: Float32Array, n: number, threads: number, damping = 0.05) {
  const rows = weights.length / n;
  const products = addon.allocate(triangleBytes(n));
  const nibbles = addon.allocate(rows * n);
  const scales = addon.allocate(rows * (n / 32) * 2);
  await addon.addProducts(products, n, held(x), x.length / n, threads);
  const sums = unfolded(products, n);
  await addon.factorProducts(products, n, damping, threads);
  await addon.roundRows(products, n, held(weights), rows, nibbles, scales, threads);
  return {
    sums,
    factor: unfolded(products, n),
    nibbles: new Uint8Array(nibbles).slice(0, rows * n),
    scales: new Uint16Array(scales).slice(0, (rows * n) / 32),
  };
}

const weightOf = (nibbles: Uint8Array, scales: Uint16Array, i: number): number =>
  (nibbles[i]! - 8) * halfToFloat(scales[Math.floor(i / 32)]!);

/** The squared error of the outputs: e H e^T over all rows. */
function outputError(
  weights: Float32Array,
  rounded: (i: number) => number,
  h: Float64Array,
  n: number,
): number {
  let sum = 0;
  for (let row = 0; row < weights.length / n; row++) {
    const e = Float64Array.from({ length: n }, (_, k) => weights[row * n + k]! - rounded(row * n + k));
    for (let i = 0; i < n; i++) for (let k = 0; k < n; k++) sum += e[i]! * h[i * n + k]! * e[k]!;
  }
  return sum;
}

/** GPTQ as its paper has it (algorithm 1), dense and in double precision, with given scales. */
function paperRounding(
  weights: Float32Array,
  scaleOf: (row: number, group: number) => number,
  h: Float64Array,
  n: number,
): Int8Array {
  const inverse = invert(h, n);
  const upper = choleskyUpper(inverse, n);
  const out = new Int8Array(weights.length);
  for (let row = 0; row < weights.length / n; row++) {
    const w = Float64Array.from(weights.subarray(row * n, row * n + n));
    for (let k = 0; k < n; k++) {
      const scale = scaleOf(row, Math.floor(k / 32));
      const z = scale === 0 ? 0 : Math.min(7, Math.max(-8, Math.round(w[k]! / scale)));
      out[row * n + k] = z;
      const error = (w[k]! - z * scale) / upper[k * n + k]!;
      for (let j = k; j < n; j++) w[j]! -= error * upper[k * n + j]!;
    }
  }
  return out;
}

/** Gauss-Jordan. */
function invert(h: Float64Array, n: number): Float64Array {
  const a = Float64Array.from(h);
  const b = new Float64Array(n * n);
  for (let i = 0; i < n; i++) b[i * n + i] = 1;
  for (let p = 0; p < n; p++) {
    const pivot = a[p * n + p]!;
    for (let k = 0; k < n; k++) {
      a[p * n + k]! /= pivot;
      b[p * n + k]! /= pivot;
    }
    for (let i = 0; i < n; i++) {
      const factor = a[i * n + p]!;
      if (i === p || factor === 0) continue;
      for (let k = 0; k < n; k++) {
        a[i * n + k]! -= factor * a[p * n + k]!;
        b[i * n + k]! -= factor * b[p * n + k]!;
      }
    }
  }
  return b;
}

/** U of m = U^T U. */
function choleskyUpper(m: Float64Array, n: number): Float64Array {
  const u = new Float64Array(n * n);
  for (let i = 0; i < n; i++)
    for (let k = i; k < n; k++) {
      let sum = m[i * n + k]!;
      for (let j = 0; j < i; j++) sum -= u[j * n + i]! * u[j * n + k]!;
      u[i * n + k] = k === i ? Math.sqrt(sum) : sum / u[i * n + i]!;
    }
  return u;
}

function damped(h: Float64Array, n: number, damping: number): Float64Array {
  const out = Float64Array.from(h);
  let mean = 0;
  for (let i = 0; i < n; i++) mean += h[i * n + i]! / n;
  for (let i = 0; i < n; i++) out[i * n + i]! += damping * mean;
  return out;
}

describe('error-compensating rounding', () => {
  const n = 96;
  const x = correlatedInputs(300, n);
  const weights = drawn(21 * n, 3);
  weights.fill(0, 4 * n, 5 * n);
  const dense = denseProducts(x, n);

  it('adds products of inputs, the upper triangle', async () => {
    const { sums } = await round(x, weights, n, 2);
    for (let i = 0; i < n; i++)
      for (let k = i; k < n; k++)
        expect(Math.abs(sums[i * n + k]! - dense[i * n + k]!)).toBeLessThan(1e-9 * dense[k * n + k]!);
  });

  it('factors them: A D A^T gives the damped products back', async () => {
    const { factor } = await round(x, weights, n, 2);
    const wanted = damped(dense, n, 0.05);
    const a = (i: number, k: number) => (i === k ? 1 : i < k ? factor[i * n + k]! : 0);
    for (let i = 0; i < n; i++)
      for (let k = i; k < n; k++) {
        let sum = 0;
        for (let j = k; j < n; j++) sum += a(i, j) * factor[j * n + j]! * a(k, j);
        expect(Math.abs(sum - wanted[i * n + k]!)).toBeLessThan(1e-9 * wanted[k * n + k]!);
      }
  });

  it('rounds to the nibbles of the paper’s algorithm', async () => {
    const { nibbles, scales } = await round(x, weights, n, 2);
    const scaleOf = (row: number, group: number) => halfToFloat(scales[row * (n / 32) + group]!);
    const expected = paperRounding(weights, scaleOf, damped(dense, n, 0.05), n);
    expect([...nibbles].map(nibble => nibble - 8)).toEqual([...expected]);
    expect(new Set(nibbles).size).toBe(16);
  });

  it('leaves a smaller error in the outputs than plain rounding with the same scales', async () => {
    const { nibbles, scales } = await round(x, weights, n, 2);
    const plain = (i: number) => {
      const scale = halfToFloat(scales[Math.floor(i / 32)]!);
      return scale === 0 ? 0 : Math.min(7, Math.max(-8, Math.round(weights[i]! / scale))) * scale;
    };
    const compensated = outputError(weights, i => weightOf(nibbles, scales, i), dense, n);
    expect(compensated).toBeLessThan(0.6 * outputError(weights, plain, dense, n));
  });

  it('gives a row of zeros the scale 0 and nibbles 8', async () => {
    const { nibbles, scales } = await round(x, weights, n, 2);
    expect([...scales.subarray(4 * 3, 5 * 3)]).toEqual([0, 0, 0]);
    expect(new Set(nibbles.subarray(4 * n, 5 * n))).toEqual(new Set([8]));
  });

  it('gives the same bytes with any number of threads', async () => {
    const one = await round(x, weights, n, 1);
    for (const threads of [2, 3, 7]) expect(await round(x, weights, n, threads)).toEqual(one);
  });

  it('rounds to the nearest where there were no inputs', async () => {
    const { nibbles, scales } = await round(new Float32Array(n), weights, n, 2);
    for (let i = 0; i < weights.length; i++) {
      const scale = halfToFloat(scales[Math.floor(i / 32)]!);
      if (scale === 0) continue;
      const inside = Math.min(7, Math.max(-8, weights[i]! / scale));
      expect(Math.abs(inside - (nibbles[i]! - 8))).toBeLessThanOrEqual(0.5 + 1e-6);
    }
  });

  it('rejects inputs that are not finite', async () => {
    const broken = Float32Array.from(x);
    broken[5] = Number.NaN;
    await expect(round(broken, weights, n, 2)).rejects.toThrow('products: are not finite');
  });

  it('refuses wrong arguments', () => {
    const memory = addon.allocate(triangleBytes(n));
    const call =
      (...values: unknown[]) =>
      () =>
        (addon.addProducts as (...a: unknown[]) => unknown)(...values);
    expect(call(memory, 33, memory, 1, 1)).toThrow('columns');
    expect(call(memory, 128, memory, 1, 1)).toThrow('products');
    expect(call(memory, n, memory, 1e6, 1)).toThrow('inputs');
    expect(call(memory, n, new ArrayBuffer(n * 4), 1, 1)).toThrow('inputs');
    expect(call(memory, n, memory, 1, 0)).toThrow('threads');
    expect(call(memory, n)).toThrow();
  });
});
