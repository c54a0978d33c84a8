import { expect, it } from 'vitest';
import { DAMAGE_TOKENS, InputDamage, PartsDamage } from '../../../src/model/quantizer/damage.ts';
import { randomNumbers } from '../small-checkpoint.ts';

const random = randomNumbers(3);
const drawn = (count: number) => Float32Array.from({ length: count }, random);

/** Inputs with an outlier in each group of the second block: all else of it is rounded to almost nothing. */
function inputs(columns: number): Float32Array {
  const x = drawn(DAMAGE_TOKENS * columns);
  for (let at = 128; at < x.length; at += columns) for (let k = 0; k < 128; k += 32) x[at + k] = 30;
  return x;
}

it('finds the block with outliers', () => {
  const damage = new InputDamage(inputs(256), 256);
  for (let row = 0; row < 20; row++) {
    const weights = drawn(256);
    for (let k = 128; k < 256; k += 32) weights[k] = 0;
    damage.add(0, weights);
  }
  const [plain, outliers] = damage.total();
  expect(plain).toBeGreaterThan(0);
  expect(outliers).toBeGreaterThan(5 * plain!);
});

it('weighs the error of a part by the outputs of all parts', () => {
  const one = inputs(128);
  const rows = [[0, drawn(128)] as const, [3, drawn(128)] as const];
  const alone = new PartsDamage();
  alone.add(one, 128, rows);
  const both = new PartsDamage();
  both.add(one, 128, rows);
  both.add(one, 128, rows);
  expect(both.total().length).toBe(2);
  // Twice the outputs are four times the square.
  expect(both.total()[0]!).toBeCloseTo(alone.total()[0]! / 4, 12);
});

it('is zero where all inputs are', () => {
  const damage = new InputDamage(new Float32Array(DAMAGE_TOKENS * 32), 32);
  damage.add(0, drawn(32));
  expect(damage.total()).toEqual([0]);
});
