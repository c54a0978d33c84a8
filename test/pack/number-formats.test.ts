import { expect, test } from 'vitest';
import { bf16ToFloat, floatToBf16, floatToHalf, halfToFloat } from '../../src/pack/number-formats.ts';

test('every half comes back as the same bits', () => {
  for (let bits = 0; bits < 65536; bits++) {
    const value = halfToFloat(bits);
    if (Number.isNaN(value)) expect(Number.isNaN(halfToFloat(floatToHalf(value)))).toBe(true);
    else if (floatToHalf(value) !== bits) expect.fail(`${bits} became ${floatToHalf(value)}`);
  }
});

test('between two halves the nearer one is taken, in the middle the even one', () => {
  for (let bits = 0; bits < 0x7bff; bits++) {
    const [low, high] = [halfToFloat(bits), halfToFloat(bits + 1)];
    const middle = (low + high) / 2; // exact in float32
    const even = bits % 2 === 0 ? bits : bits + 1;
    const found = [
      floatToHalf(middle),
      floatToHalf(middle - (high - low) / 8),
      floatToHalf(middle + (high - low) / 8),
    ];
    if (found[0] !== even || found[1] !== bits || found[2] !== bits + 1) expect.fail(`${bits}: ${found}`);
    if (floatToHalf(-middle) !== (even | 0x8000)) expect.fail(`-${bits}`);
  }
});

test('known halves', () => {
  expect(
    [1, -2, 65504, 65519, 65520, 1e9, 2 ** -24, 2 ** -25, 0.1, Number.POSITIVE_INFINITY].map(floatToHalf),
  ).toEqual([0x3c00, 0xc000, 0x7bff, 0x7bff, 0x7c00, 0x7c00, 1, 0, 0x2e66, 0x7c00]);
});

test('every bfloat16 comes back as the same bits', () => {
  for (let bits = 0; bits < 65536; bits++) {
    const value = bf16ToFloat(bits);
    if (Number.isNaN(value)) expect(Number.isNaN(bf16ToFloat(floatToBf16(value)))).toBe(true);
    else if (floatToBf16(value) !== bits) expect.fail(`${bits} became ${floatToBf16(value)}`);
  }
  expect(floatToBf16(1 + 2 ** -8)).toBe(0x3f80);
  expect(floatToBf16(1 + 3 * 2 ** -8)).toBe(0x3f82);
  expect(floatToBf16(1 + 2 ** -8 + 2 ** -20)).toBe(0x3f81);
});
