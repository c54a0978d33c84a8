import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  leastRingBytes,
  leastWindowBytes,
  MemoryTooSmallError,
  pinnedCount,
  planWindow,
  ringFor,
  spreadOrder,
  type WindowPlan,
} from '../../src/window-scheduler/plan-window.ts';
import { makeRuns, type WindowTile } from '../../src/window-scheduler/tile-runs.ts';

const PAGE = 4096;
const MIB = 1 << 20;

/** Neighbours in one file. */
function tilesOf(pages: readonly number[]): WindowTile[] {
  let offset = 0;
  return pages.map((count, i) => {
    const bytes = count * PAGE;
    const tile = { tile: i * 3, bytes, place: { path: 'a', offset } };
    offset += bytes;
    return tile;
  });
}

const pinnedOf = (plan: WindowPlan, budget: number): number[] =>
  plan.pinOrder.slice(0, pinnedCount(plan, budget));
const bytesOf = (plan: WindowPlan, runs: readonly number[]): number =>
  runs.reduce((sum, run) => sum + plan.runs[run]!.bytes, 0);

describe('makeRuns', () => {
  it('joins neighbours up to a size, and only neighbours', () => {
    const tiles = tilesOf([1, 2, 3, 1]);
    expect(makeRuns(tiles, 3 * PAGE).map(run => run.tiles.map(({ tile }) => tile))).toEqual([
      [0, 3],
      [6],
      [9],
    ]);
    expect(makeRuns(tiles, 7 * PAGE)).toHaveLength(1);
    expect(makeRuns(tiles, 7 * PAGE)[0]!.tiles.map(({ offset }) => offset / PAGE)).toEqual([0, 1, 3, 6]);
    expect(makeRuns(tiles, 0)).toHaveLength(4);
    const apart = tiles.map((tile, i) =>
      i === 2 ? { ...tile, place: { path: 'b', offset: 3 * PAGE } } : tile,
    );
    expect(makeRuns(apart, 7 * PAGE).map(run => run.tiles.length)).toEqual([2, 1, 1]);
    const unknown = tiles.map(({ tile, bytes }) => ({ tile, bytes }));
    expect(makeRuns(unknown, 7 * PAGE)).toHaveLength(4);
  });

  it('refuses tiles that are not whole pages', () => {
    expect(() => makeRuns([{ tile: 1, bytes: 100 }], PAGE)).toThrow(/multiple of 4096/);
  });
});

describe('planWindow', () => {
  it('pins everything that fits, to the byte', () => {
    const tiles = tilesOf([3, 4, 5]);
    const plan = planWindow(tiles, 12 * PAGE);
    expect(pinnedCount(plan, 12 * PAGE)).toBe(plan.runs.length);
    expect(pinnedCount(plan, 12 * PAGE - 1)).toBeLessThan(plan.runs.length);
    expect(planWindow([], 0)).toMatchObject({ runs: [], totalBytes: 0 });
  });

  it('needs twice the largest tile, and says so', () => {
    const tiles = tilesOf([1, 7, 2, 7, 3]);
    expect(planWindow(tiles, 14 * PAGE).ringBytes).toBe(14 * PAGE);
    let thrown: unknown;
    try {
      planWindow(tiles, 14 * PAGE - 1);
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(MemoryTooSmallError);
    expect(thrown).toMatchObject({ code: 'MEMORY_TOO_SMALL', leastBytes: 14 * PAGE });
    expect((thrown as Error).message).toContain(`${14 * PAGE} bytes`);
    expect(leastWindowBytes(tilesOf([7]))).toBe(7 * PAGE);
    expect(() => planWindow(tilesOf([7]), 0)).toThrow(/to hold all/);
  });

  it('has a ring for what the disk reads while compute pauses, and for several runs', () => {
    const tiles = tilesOf(Array.from({ length: 1000 }, () => 256));
    expect(planWindow(tiles, 500 * MIB, 4e9).ringBytes).toBeGreaterThan(
      planWindow(tiles, 500 * MIB, 2e9).ringBytes,
    );
    expect(planWindow(tiles, 500 * MIB, 1e6).ringBytes).toBe(16 * MIB);
    expect(planWindow(tiles, 8 * MIB, 4e9).ringBytes).toBe(8 * MIB);
    expect(planWindow(tiles, 8 * MIB).runs[0]!.bytes).toBe(1 * MIB);
    expect(planWindow(tiles, 500 * MIB).runs[0]!.bytes).toBe(4 * MIB);
  });

  it('never plans past the budget, pins more as it grows, and bunches neither pinned nor streamed runs', () => {
    const pages = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 200 });
    fc.assert(
      fc.property(pages, fc.double({ min: 0, max: 1.2, noNaN: true }), (sizes, part) => {
        const tiles = tilesOf(sizes).map(({ tile, bytes }) => ({ tile, bytes }));
        const total = tiles.reduce((sum, { bytes }) => sum + bytes, 0);
        const least = leastWindowBytes(tiles);
        const budget = least + Math.floor((total - least) * part);
        const plan = planWindow(tiles, budget);
        const pinned = pinnedOf(plan, budget);
        expect(plan.totalBytes).toBe(total);
        expect([...plan.pinOrder].sort((a, b) => a - b)).toEqual(plan.runs.map((_, i) => i));
        expect(pinned.length === plan.runs.length).toBe(budget >= total);
        const more = pinnedOf(plan, budget + PAGE * 10);
        expect(more.slice(0, pinned.length)).toEqual(pinned);
        if (budget >= total) return;
        expect(bytesOf(plan, pinned) + plan.ringBytes).toBeLessThanOrEqual(budget);
        expect(plan.ringBytes).toBeGreaterThanOrEqual(Math.min(total, least));
        expect(plan.ringBytes % PAGE).toBe(0);
        const largest = Math.max(...plan.runs.map(({ bytes }) => bytes));
        expect(largest).toBeLessThanOrEqual(plan.ringBytes);
        for (const later of [budget * 2, budget, budget / 2, budget / 7, 0, -PAGE]) {
          const ring = ringFor(plan, later);
          expect(ring % PAGE).toBe(0);
          expect(ring).toBeLessThanOrEqual(Math.max(later, leastRingBytes(plan)));
          expect(ring).toBeGreaterThanOrEqual(Math.min(plan.ringBytes, 2 * largest));
          expect(ring === plan.ringBytes).toBe(
            later >= plan.ringBytes || leastRingBytes(plan) === plan.ringBytes,
          );
        }
      }),
    );
  });

  it('spreads every first part of the pin order evenly', () => {
    for (const count of [1, 2, 7, 64, 100, 1000]) {
      const order = spreadOrder(count);
      expect([...order].sort((a, b) => a - b)).toEqual(Array.from({ length: count }, (_, i) => i));
      for (const some of [1, Math.ceil(count / 5), Math.ceil(count / 2)]) {
        const chosen = new Set(order.slice(0, some));
        let owed = 0;
        for (let i = 0; i < count; i++) {
          owed += some / count - (chosen.has(i) ? 1 : 0);
          // The discrepancy of van der Corput's sequence grows with the logarithm of its length.
          expect(Math.abs(owed)).toBeLessThanOrEqual(2 + Math.log2(count) / 2);
        }
      }
    }
  });
});
