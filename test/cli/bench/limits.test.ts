import { expect, test } from 'vitest';
import { Limits } from '../../../src/cli/bench/limits.ts';
import type { LimitPrograms } from '../../../src/kernels/addon.ts';

const MIB = 2 ** 20;

/** A machine whose programs take what `seconds` says for a byte or a multiply-add. */
function machine(seconds: Record<string, number>): { addon: LimitPrograms; ran: string[] } {
  const ran: string[] = [];
  const dot = ['vpdpbusd zmm', 'vpmaddubsw'].map(name => ({ name, multiplyAdds: 1000 }));
  const addon: LimitPrograms = {
    limitPrograms: () => ({ read: ['plain', 'ahead'], dot }),
    measureRead: async (_memory, bytes, program, threads, repeats) => {
      ran.push(program);
      return (bytes * repeats * seconds[program]!) / threads;
    },
    measureDot: async (program, threads, rounds) => {
      ran.push(program);
      return (rounds * 1000 * seconds[program]!) / threads;
    },
  };
  return { addon, ran };
}

test('the fastest way to read memory counts, and is looked for once for each number of threads', async () => {
  const { addon, ran } = machine({ plain: 1e-10, ahead: 5e-11 });
  const limits = new Limits(addon, new ArrayBuffer(3 * MIB + 1));
  expect(await limits.readRate(2)).toBeCloseTo(4e10, -3);
  expect(ran.at(-1)).toBe('ahead');
  const searched = ran.length;
  expect(await limits.readRate(2)).toBeCloseTo(4e10, -3);
  expect(ran.length).toBe(searched + 1);
  expect(await limits.readRate(1)).toBeCloseTo(2e10, -3);
  expect(ran.length).toBeGreaterThan(searched + 2);
});

test('the peak is of the fastest instruction, or of those that were asked for', async () => {
  const { addon } = machine({ 'vpdpbusd zmm': 1e-12, vpmaddubsw: 4e-12 });
  const limits = new Limits(addon, new ArrayBuffer(MIB));
  expect(await limits.dotPeak(1)).toBeCloseTo(1e12, -3);
  expect(await limits.dotPeak(2, 'vpmaddubsw')).toBeCloseTo(5e11, -3);
  await expect(limits.dotPeak(1, 'sdot')).rejects.toMatchObject({ code: 'KERNEL_UNKNOWN' });
});
