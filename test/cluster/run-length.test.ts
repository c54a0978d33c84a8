import { describe, expect, it } from 'vitest';
import { decodeRuns, encodeRuns } from '../../src/cluster/run-length.ts';
import { seeded } from './random.ts';

describe('runs', () => {
  it('joins equal neighbours', () => {
    expect(encodeRuns([3, 3, 3, 0, 3])).toEqual([3, 3, 0, 1, 3, 1]);
    expect(encodeRuns([])).toEqual([]);
  });

  it('come back as they were', () => {
    const random = seeded(4);
    for (let n = 0; n < 50; n++) {
      const values = Array.from({ length: Math.floor(random() * 60) }, () => Math.floor(random() * 3));
      expect(decodeRuns(encodeRuns(values), 60)).toEqual(values);
    }
  });

  it('are refused before anything is allocated for them', () => {
    expect(decodeRuns([1], 10)).toBeNull();
    expect(decodeRuns([1, 0], 10)).toBeNull();
    expect(decodeRuns([1, 1.5], 10)).toBeNull();
    expect(decodeRuns([1, 11], 10)).toBeNull();
    expect(decodeRuns([1, Number.MAX_SAFE_INTEGER, 1, Number.MAX_SAFE_INTEGER], 10)).toBeNull();
    expect(decodeRuns([1, 10], 10)).toHaveLength(10);
  });
});
