import { describe, expect, it } from 'vitest';
import { placeInRing } from '../../src/window-scheduler/ring.ts';

const spaces = (...list: readonly (readonly [offset: number, bytes: number])[]) =>
  list.map(([offset, bytes]) => ({ offset, bytes }));

describe('placeInRing', () => {
  it('starts an empty ring at 0', () => {
    expect(placeInRing([], 10, 10)).toBe(0);
    expect(placeInRing([], 11, 10)).toBe(undefined);
  });

  it('goes on after the newest', () => {
    expect(placeInRing(spaces([0, 4]), 6, 10)).toBe(4);
    expect(placeInRing(spaces([0, 4]), 7, 10)).toBe(undefined);
  });

  it('wraps where the end is too short and the start is free', () => {
    expect(placeInRing(spaces([4, 4]), 2, 10)).toBe(8);
    expect(placeInRing(spaces([4, 4]), 3, 10)).toBe(0);
    expect(placeInRing(spaces([4, 4]), 4, 10)).toBe(0);
    expect(placeInRing(spaces([4, 4]), 5, 10)).toBe(undefined);
  });

  it('stops at the oldest once wrapped', () => {
    expect(placeInRing(spaces([4, 4], [0, 1]), 3, 10)).toBe(1);
    expect(placeInRing(spaces([4, 4], [0, 1]), 4, 10)).toBe(undefined);
    expect(placeInRing(spaces([4, 6], [0, 4]), 1, 10)).toBe(undefined);
  });

  it('puts nothing behind the end of a ring that got smaller', () => {
    expect(placeInRing(spaces([4, 4]), 1, 6)).toBe(0);
    expect(placeInRing(spaces([7, 3], [0, 4]), 2, 6)).toBe(4);
    expect(placeInRing(spaces([7, 3], [0, 4]), 3, 6)).toBe(undefined);
    expect(placeInRing(spaces([8, 2]), 7, 6)).toBe(undefined);
  });
});
