import { expect, test } from 'vitest';
import { ropeFrequencies } from '../../src/model/rope-frequencies.ts';

test('frequencies fall from 1 by theta, in float32', () => {
  const found = ropeFrequencies(8, 10000);
  [1, 0.1, 0.01, 0.001].forEach((wanted, i) => {
    expect(found[i]).toBe(Math.fround(wanted));
  });
});

test('llama3: short wavelengths stay, long ones are stretched, those between are blended', () => {
  const plain = ropeFrequencies(128, 500000);
  const scaling = { factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalContext: 8192 };
  const found = ropeFrequencies(128, 500000, scaling);
  let between = 0;
  found.forEach((frequency, i) => {
    const wavelength = (2 * Math.PI) / plain[i]!;
    if (wavelength < 2048) expect(frequency).toBe(plain[i]);
    else if (wavelength > 8192) expect(frequency).toBe(plain[i]! / 8);
    else {
      between++;
      const smooth = (8192 / wavelength - 1) / 3;
      expect(frequency / ((1 - smooth) * (plain[i]! / 8) + smooth * plain[i]!)).toBeCloseTo(1, 5);
    }
  });
  expect(between).toBeGreaterThan(3);
});
