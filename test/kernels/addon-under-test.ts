import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import type { Addon } from '../../src/kernels/addon.ts';

const path = fileURLToPath(new URL('../../build/potluck.node', import.meta.url));

function load(): Addon {
  if (!existsSync(path)) throw new Error(`${path} is not there: run node scripts/build-addon.mjs`);
  return createRequire(import.meta.url)(path) as Addon;
}

/** The addon as it was last built; its absence is a failure, not a skip. */
export const addon = load();

/** Kernel variants of this machine, the reference included; says which it has not. */
export function machineVariants(): readonly string[] {
  const { available, unavailable } = addon.kernels();
  for (const { name, reason } of unavailable) console.warn(`kernel ${name} is not tested here: ${reason}`);
  return available;
}

/** What outputs are filled with before a call: no result looks like it. */
export const POISON = -7.25e31;

/** The same bits, except that every NaN is the same; as text that a failure can show. */
export function floatBits(values: Float32Array): Uint32Array {
  const bits = Uint32Array.from(new Uint32Array(values.buffer, values.byteOffset, values.length));
  values.forEach((value, i) => {
    if (Number.isNaN(value)) bits[i] = 0x7fc00000;
  });
  return bits;
}

/** Seeded numbers in [0, 1): mulberry32. */
export function randomSource(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Values in (-size, size). */
export function randomFloats(random: () => number, count: number, size = 1): Float32Array {
  return Float32Array.from({ length: count }, () => (random() * 2 - 1) * size);
}
