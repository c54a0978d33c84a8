import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  choosePinned,
  leastWindowBytes,
  MemoryTooSmallError,
  type WindowTile,
} from '../../src/window-scheduler/choose-pinned.ts';

const PAGE = 4096;
const tilesOf = (pages: readonly number[]): WindowTile[] =>
  pages.map((count, i) => ({ tile: i * 3, bytes: count * PAGE }));

describe('choosePinned', () => {
  it('pins everything that fits, to the byte', () => {
    const tiles = tilesOf([3, 4, 5]);
    expect(choosePinned(tiles, 12 * PAGE)).toEqual({
      pinned: [true, true, true],
      pinnedBytes: 12 * PAGE,
      ringBytes: 0,
      streamedBytes: 0,
    });
    expect(choosePinned(tiles, 12 * PAGE - 1).pinned).toContain(false);
    expect(choosePinned([], 0)).toEqual({ pinned: [], pinnedBytes: 0, ringBytes: 0, streamedBytes: 0 });
  });

  it('spreads pinned tiles evenly', () => {
    const plan = choosePinned(tilesOf(Array.from({ length: 100 }, () => 2)), 110 * PAGE, 10 * PAGE);
    expect(plan).toMatchObject({ pinnedBytes: 100 * PAGE, ringBytes: 10 * PAGE, streamedBytes: 100 * PAGE });
    expect(plan.pinned).toEqual(plan.pinned.map((_, i) => i % 2 === 1));
  });

  it('needs twice the largest tile, and says so', () => {
    const tiles = tilesOf([1, 7, 2, 7, 3]);
    expect(choosePinned(tiles, 14 * PAGE)).toMatchObject({ pinnedBytes: 0, ringBytes: 14 * PAGE });
    let thrown: unknown;
    try {
      choosePinned(tiles, 14 * PAGE - 1);
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(MemoryTooSmallError);
    expect(thrown).toMatchObject({ code: 'MEMORY_TOO_SMALL', leastBytes: 14 * PAGE });
    expect((thrown as Error).message).toContain(`${14 * PAGE} bytes`);
    // One tile needs no second place.
    expect(leastWindowBytes(tilesOf([7]))).toBe(7 * PAGE);
    expect(() => choosePinned(tilesOf([7]), 0)).toThrow(/to hold all/);
  });

  it('gives the ring what it is asked for, before tiles are pinned', () => {
    const tiles = tilesOf(Array.from({ length: 50 }, () => 1));
    expect(choosePinned(tiles, 30 * PAGE, 8 * PAGE)).toMatchObject({
      pinnedBytes: 22 * PAGE,
      ringBytes: 8 * PAGE,
    });
    expect(choosePinned(tiles, 6 * PAGE, 8 * PAGE)).toMatchObject({ pinnedBytes: 0, ringBytes: 6 * PAGE });
  });

  it('refuses tiles that are not whole pages', () => {
    expect(() => choosePinned([{ tile: 1, bytes: 100 }], PAGE)).toThrow(/multiple of 4096/);
  });

  it('never plans past the budget, and bunches neither pinned nor streamed tiles', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 200 }),
        fc.double({ min: 0, max: 1.2, noNaN: true }),
        fc.option(fc.integer({ min: 1, max: 200 }), { nil: undefined }),
        (pages, part, ringPages) => {
          const tiles = tilesOf(pages);
          const total = tiles.reduce((sum, { bytes }) => sum + bytes, 0);
          const largest = Math.max(...tiles.map(({ bytes }) => bytes));
          const least = leastWindowBytes(tiles);
          const budget = least + Math.floor((total - least) * part);
          const plan = choosePinned(tiles, budget, ringPages && ringPages * PAGE);
          const pinnedBytes = tiles.reduce((sum, { bytes }, i) => sum + (plan.pinned[i] ? bytes : 0), 0);
          expect(plan.pinnedBytes).toBe(pinnedBytes);
          expect(plan.streamedBytes).toBe(total - pinnedBytes);
          expect(plan.pinnedBytes + plan.ringBytes).toBeLessThanOrEqual(budget);
          expect(plan.streamedBytes === 0).toBe(budget >= total);
          if (budget >= total) return;
          expect(plan.ringBytes).toBeGreaterThanOrEqual(2 * largest);
          expect(plan.ringBytes % PAGE).toBe(0);
          // No stretch of the pass has much more, or much less, than its share.
          const share = pinnedBytes / total;
          let owed = 0;
          for (const [i, { bytes }] of tiles.entries()) {
            owed += bytes * share - (plan.pinned[i] ? bytes : 0);
            expect(Math.abs(owed)).toBeLessThanOrEqual(2 * largest);
          }
        },
      ),
    );
  });
});
