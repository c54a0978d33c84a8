import { expect, test } from 'vitest';
import type { ElementFormat } from '../../../src/model/element-formats.ts';
import { Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 } from '../../../src/model/gguf/blocks.ts';
import { Q2_K, Q3_K, Q4_K, Q5_K, Q6_K } from '../../../src/model/gguf/k-blocks.ts';

/** Halves, by their bits: 1, 0.5, -2, 0.25. */
const ONE = [0x00, 0x3c];
const HALF = [0x00, 0x38];
const MINUS_TWO = [0x00, 0xc0];
const QUARTER = [0x00, 0x34];

const fill = (count: number, byte: number): number[] => Array<number>(count).fill(byte);

/** Decodes one block; `parts` are its bytes in order. */
function decode(format: ElementFormat, ...parts: number[][]): number[] {
  const bytes = Uint8Array.from(parts.flat());
  expect(bytes.length).toBe(format.blockBytes);
  // Behind other bytes, as in a file.
  const file = new Uint8Array(7 + bytes.length);
  file.set(bytes, 7);
  const target = new Float32Array(format.blockElements + 1).fill(99);
  format.decode(new DataView(file.buffer), 7, 1, target);
  expect(target.at(-1)).toBe(99);
  return [...target.subarray(0, -1)];
}

test('Q8_0: scale times signed bytes', () => {
  expect(decode(Q8_0, HALF, [1, 255, 127, 128, ...fill(28, 2)])).toEqual([
    0.5,
    -0.5,
    63.5,
    -64,
    ...fill(28, 1),
  ]);
});

test('Q4_0: low halves are the first 16 weights, high halves the others; 8 is zero', () => {
  expect(decode(Q4_0, MINUS_TWO, [0x0f, 0x80, ...fill(14, 0x97)])).toEqual([
    ...[-14, 16, ...fill(14, 2)],
    ...[16, -0, ...fill(14, -2)],
  ]);
});

test('Q4_1: scale and least value', () => {
  expect(decode(Q4_1, HALF, MINUS_TWO, [0x1f, ...fill(15, 0x42)])).toEqual([
    ...[5.5, ...fill(15, -1)],
    ...[-1.5, ...fill(15, 0)],
  ]);
});

test('Q5_0: fifth bits in the order of the weights; 16 is zero', () => {
  const fifth = [0b00000001, 0, 0b00000010, 0b10000000]; // weights 0, 17, 31
  expect(decode(Q5_0, ONE, fifth, [0x32, 0x14, ...fill(14, 0x55)])).toEqual([
    ...[2, -12, ...fill(14, -11)],
    ...[-13, 1, ...fill(13, -11), 5],
  ]);
});

test('Q5_1: fifth bits and a least value', () => {
  expect(decode(Q5_1, QUARTER, ONE, [0xff, 0xff, 0, 0], fill(16, 0x48))).toEqual([
    ...fill(16, 0.25 * 24 + 1),
    ...fill(16, 0.25 * 4 + 1),
  ]);
});

test('Q2_K: sixteen parts of 16, quanta of two bits in four layers of 32 bytes', () => {
  const scales = Array.from({ length: 16 }, (_, part) => part | ((15 - part) << 4));
  // Byte 0b11100100: layer 0 has 0, layer 1 has 1, layer 2 has 2, layer 3 has 3.
  const got = decode(Q2_K, scales, fill(64, 0b11100100), HALF, ONE);
  for (let i = 0; i < 256; i++) {
    const part = Math.floor(i / 16);
    const quantum = Math.floor((i % 128) / 32);
    expect(got[i]).toBe(0.5 * part * quantum - (15 - part));
  }
});

test('Q3_K: a clear third bit takes 4 away; scales of six bits less 32', () => {
  // Third bits: set for the weights of bit 0 only, which are 0 to 31.
  const scales = [...fill(8, 0x21), ...fill(4, 0b11_10_01_00)];
  const got = decode(Q3_K, fill(32, 0b00000001), fill(64, 0b00_01_10_11), scales, ONE);
  const scaleOf = (part: number) => (part < 8 ? 1 : 2) + 16 * Math.floor(part / 4) - 32;
  for (let i = 0; i < 256; i++) {
    const quantum = 3 - Math.floor((i % 128) / 32);
    expect(got[i]).toBe(scaleOf(Math.floor(i / 16)) * (quantum - (i < 32 ? 0 : 4)));
  }
});

/** Eight scales 1, 2, 3, 4, 37, 38, 39, 40 and least values 5, 6, 7, 8, 25, 26, 27, 28 in ggml's twelve bytes. */
const SIX_BITS = [
  ...[1, 2, 3, 4].map(low => low | (2 << 6)), // high two bits of 37 ... are 2
  ...[5, 6, 7, 8].map(low => low | (1 << 6)), // high two bits of 25 ... are 1
  ...[5, 6, 7, 8].map((scale, i) => scale | ((9 + i) << 4)),
];
const SCALES = [1, 2, 3, 4, 37, 38, 39, 40];
const LEAST = [5, 6, 7, 8, 25, 26, 27, 28];

test('Q4_K: eight parts of 32, two of them in the halves of 32 bytes', () => {
  const got = decode(Q4_K, HALF, ONE, SIX_BITS, fill(128, 0xa3));
  for (let i = 0; i < 256; i++) {
    const part = Math.floor(i / 32);
    expect(got[i]).toBe(0.5 * SCALES[part]! * (part % 2 === 0 ? 3 : 10) - LEAST[part]!);
  }
});

test('Q5_K: the fifth bit of part p is bit p of 32 bytes', () => {
  const got = decode(Q5_K, HALF, ONE, SIX_BITS, fill(32, 0b10000110), fill(128, 0xa3));
  for (let i = 0; i < 256; i++) {
    const part = Math.floor(i / 32);
    const quantum = (part % 2 === 0 ? 3 : 10) + ([1, 2, 7].includes(part) ? 16 : 0);
    expect(got[i]).toBe(0.5 * SCALES[part]! * quantum - LEAST[part]!);
  }
});

test('Q6_K: four low bits and two high bits; 32 is zero; scales are signed', () => {
  const scales = Array.from({ length: 16 }, (_, part) => (part % 2 === 0 ? part + 1 : 256 - part));
  // Low halves: 0x5 in the first two rows of 32, 0xb in the last two. High bits of the four rows: 0, 1, 2, 3.
  const got = decode(Q6_K, fill(128, 0xb5), fill(64, 0b11_10_01_00), scales, HALF);
  for (let i = 0; i < 256; i++) {
    const part = Math.floor(i / 16);
    const row = Math.floor((i % 128) / 32);
    const quantum = (row < 2 ? 5 : 11) + 16 * row;
    expect(got[i]).toBe(0.5 * (part % 2 === 0 ? part + 1 : -part) * (quantum - 32));
  }
});
