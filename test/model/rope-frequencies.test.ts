import { expect, test } from 'vitest';
import { makeRotation, plainFrequencies, type RopeParameters } from '../../src/model/rope-frequencies.ts';

const BASE: RopeParameters = {
  type: 'default',
  theta: 10000,
  factor: 1,
  originalContext: 64,
  lowFrequencyFactor: 1,
  highFrequencyFactor: 4,
  attentionFactor: null,
  mscale: null,
  mscaleAllDim: null,
  betaFast: 32,
  betaSlow: 1,
  truncate: true,
  shortFactors: [],
  longFactors: [],
};

test('frequencies fall from 1 by theta, in float32', () => {
  const found = makeRotation(8, BASE).frequencies;
  [1, 0.1, 0.01, 0.001].forEach((wanted, i) => {
    expect(found[i]).toBe(Math.fround(wanted));
  });
});

test('llama3: short wavelengths stay, long ones are stretched, those between are blended', () => {
  const plain = plainFrequencies(128, 500000);
  const found = makeRotation(128, {
    ...BASE,
    type: 'llama3',
    theta: 500000,
    factor: 8,
    originalContext: 8192,
  }).frequencies;
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

test('linear: every wavelength is stretched', () => {
  const found = makeRotation(8, { ...BASE, type: 'linear', factor: 4 }).frequencies;
  expect(found).toEqual(plainFrequencies(8, 10000).map(frequency => frequency / 4));
});

test('yarn: fast channels stay, slow ones are stretched, a ramp between; angles grow by the attention factor', () => {
  const { frequencies, magnitude } = makeRotation(64, {
    ...BASE,
    type: 'yarn',
    factor: 4,
    originalContext: 4096,
  });
  const plain = plainFrequencies(64, 10000);
  // Channels that turn 32 times and once in 4096 positions: 32 ln(4096 / (2 pi turns)) / ln 10000 = 10.5 and 22.5.
  for (let i = 0; i < 32; i++) {
    const share = frequencies[i]! / plain[i]!;
    if (i <= 10) expect(share).toBeCloseTo(1, 6);
    else if (i >= 23) expect(share).toBeCloseTo(0.25, 6);
    else expect(share).toBeCloseTo(1 - 0.75 * ((i - 10) / 13), 6);
  }
  expect(magnitude).toBeCloseTo(0.1 * Math.log(4) + 1, 6);
});

test('longrope: short and long factors, and a magnitude of the stretch', () => {
  const found = makeRotation(8, {
    ...BASE,
    type: 'longrope',
    factor: 32,
    originalContext: 4096,
    shortFactors: [1, 2, 4, 8],
    longFactors: [1, 10, 100, 1000],
  });
  const plain = plainFrequencies(8, 10000);
  found.frequencies.forEach((frequency, i) => {
    expect(frequency / (plain[i]! / 2 ** i)).toBeCloseTo(1, 6);
  });
  expect(found.beyond).toMatchObject({ type: 'frequencies', over: 4096 });
  expect(found.magnitude).toBeCloseTo(Math.sqrt(1 + Math.log(32) / Math.log(4096)), 6);
});
