import { describe, expect, it } from 'vitest';
import { Throughput } from '../../src/engine/throughput.ts';

describe('Throughput', () => {
  it('is the rate since tokens began to come, then that of the last ten seconds', () => {
    const t = new Throughput();
    expect(t.rate(5_000)).toBe(0);
    for (let ms = 100_000; ms < 104_000; ms += 100) t.add(ms, 1);
    expect(t.rate(104_000)).toBeCloseTo(10, 6);
    for (let ms = 104_000; ms < 130_000; ms += 50) t.add(ms, 1);
    expect(t.rate(129_999)).toBeCloseTo(20, 1);
  });

  it('falls to nothing when no tokens come, and starts anew', () => {
    const t = new Throughput();
    t.add(1_000, 50);
    expect(t.rate(1_500)).toBe(50);
    expect(t.rate(6_000)).toBe(10);
    expect(t.rate(12_000)).toBe(0);
    t.add(100_000, 8);
    expect(t.rate(102_000)).toBe(4);
  });
});
