import { blockFormat, halfAt } from './block-format.ts';

/**
 * ggml's super-blocks of 256 weights: parts of 16 or 32 weights have small scales of their own, and those have a scale of
 * IEEE half in common. Products are rounded to float32 in ggml's order.
 */

const ELEMENTS = 256;
const { fround } = Math;

/** 16 bytes of 4-bit scales (low) and least values (high), 64 bytes of 2-bit quanta, half d, half least. */
export const Q2_K = blockFormat('Q2_K', ELEMENTS, 84, (source, at, target, to) => {
  const d = halfAt(source, at + 80);
  const least = halfAt(source, at + 82);
  for (let part = 0; part < 16; part++) {
    const byte = source.getUint8(at + part);
    const scale = fround(d * (byte & 15));
    const offset = fround(least * (byte >> 4));
    const shift = 2 * ((part >> 1) & 3);
    const quanta = at + 16 + 32 * (part >> 3) + 16 * (part & 1);
    for (let j = 0; j < 16; j++)
      target[to + 16 * part + j] = fround(scale * ((source.getUint8(quanta + j) >> shift) & 3)) - offset;
  }
});

/** 32 bytes of third bits (clear: 4 less), 64 bytes of 2-bit quanta, 12 bytes of sixteen 6-bit scales, half d. */
export const Q3_K = blockFormat('Q3_K', ELEMENTS, 110, (source, at, target, to) => {
  const d = halfAt(source, at + 108);
  for (let part = 0; part < 16; part++) {
    const low = source.getUint8(at + 96 + (part & 7)) >> (part < 8 ? 0 : 4);
    const high = source.getUint8(at + 104 + (part & 3)) >> (2 * (part >> 2));
    const scale = fround(d * (((low & 15) | ((high & 3) << 4)) - 32));
    const shift = 2 * ((part >> 1) & 3);
    const column = 16 * (part & 1);
    const quanta = at + 32 + 32 * (part >> 3) + column;
    for (let j = 0; j < 16; j++) {
      const third = (source.getUint8(at + column + j) >> (part >> 1)) & 1;
      const quantum = ((source.getUint8(quanta + j) >> shift) & 3) - (third === 1 ? 0 : 4);
      target[to + 16 * part + j] = scale * quantum;
    }
  }
});

/** The 6-bit scale of part `part` of 8 in the 12 bytes at `at`, and with `at + 4` its least value. */
function sixBits(source: DataView, at: number, part: number, isLeast: boolean): number {
  const first = source.getUint8(at + (part & 3) + (isLeast ? 4 : 0));
  if (part < 4) return first & 63;
  const rest = source.getUint8(at + 8 + (part & 3));
  return (isLeast ? rest >> 4 : rest & 15) | ((first >> 6) << 4);
}

/** half d, half least, 12 bytes of eight 6-bit scales and least values, 128 bytes of 4-bit quanta. */
export const Q4_K = blockFormat('Q4_K', ELEMENTS, 144, (source, at, target, to) => {
  const d = halfAt(source, at);
  const least = halfAt(source, at + 2);
  for (let part = 0; part < 8; part++) {
    const scale = fround(d * sixBits(source, at + 4, part, false));
    const offset = fround(least * sixBits(source, at + 4, part, true));
    const quanta = at + 16 + 32 * (part >> 1);
    const shift = 4 * (part & 1);
    for (let j = 0; j < 32; j++)
      target[to + 32 * part + j] = fround(scale * ((source.getUint8(quanta + j) >> shift) & 15)) - offset;
  }
});

/** As Q4_K, with 32 bytes of fifth bits (bit `part` of each) before the quanta. */
export const Q5_K = blockFormat('Q5_K', ELEMENTS, 176, (source, at, target, to) => {
  const d = halfAt(source, at);
  const least = halfAt(source, at + 2);
  for (let part = 0; part < 8; part++) {
    const scale = fround(d * sixBits(source, at + 4, part, false));
    const offset = fround(least * sixBits(source, at + 4, part, true));
    const quanta = at + 48 + 32 * (part >> 1);
    const shift = 4 * (part & 1);
    for (let j = 0; j < 32; j++) {
      const fifth = (source.getUint8(at + 16 + j) >> part) & 1;
      const quantum = ((source.getUint8(quanta + j) >> shift) & 15) | (fifth << 4);
      target[to + 32 * part + j] = fround(scale * quantum) - offset;
    }
  }
});

/** 128 bytes of low 4 bits, 64 bytes of high 2 bits, 16 int8 scales, half d: d * scale * (q - 32). */
export const Q6_K = blockFormat('Q6_K', ELEMENTS, 210, (source, at, target, to) => {
  const d = halfAt(source, at + 208);
  for (let part = 0; part < 16; part++) {
    const scale = fround(d * source.getInt8(at + 192 + part));
    // Parts go in eights: four rows of 32 weights, low bits in two of 64 bytes, high bits in four of 2 bits.
    const group = part >> 3;
    const row = (part >> 1) & 3;
    const column = 16 * (part & 1);
    const low = at + 64 * group + 32 * (row & 1) + column;
    const high = at + 128 + 32 * group + column;
    for (let j = 0; j < 16; j++) {
      const bits = (source.getUint8(low + j) >> (row < 2 ? 0 : 4)) & 15;
      const more = (source.getUint8(high + j) >> (2 * row)) & 3;
      target[to + 16 * part + j] = scale * ((bits | (more << 4)) - 32);
    }
  }
});
