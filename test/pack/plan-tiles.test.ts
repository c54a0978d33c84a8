import { describe, expect, it } from 'vitest';
import { PlanTiles } from '../../src/pack/plan-tiles.ts';

const cached = (...hashes: string[]): Map<string, number> => new Map(hashes.map(hash => [hash, 10]));

describe('which tiles make room', () => {
  it('those of no plan, then those of the plan used longest ago', () => {
    const plans = new PlanTiles();
    plans.use('one', ['a', 'b']);
    plans.use('two', ['c']);
    plans.use('three', ['d']);
    const all = cached('a', 'b', 'c', 'd', 'x');
    expect(plans.victims(all, 25, new Set(['d']))).toEqual({ hashes: ['x', 'a', 'b'], bytes: 30 });
    plans.use('one', ['a', 'b']);
    expect(plans.victims(all, 25, new Set(['a', 'b'])).hashes).toEqual(['x', 'c', 'd']);
  });

  it('never those that are kept, and not those that a plan used later needs', () => {
    const plans = new PlanTiles();
    plans.use('one', ['a', 'b']);
    plans.use('two', ['b', 'c']);
    expect(plans.victims(cached('a', 'b', 'c'), 1000, new Set(['c']))).toEqual({
      hashes: ['a', 'b'],
      bytes: 20,
    });
    expect(plans.victims(cached('a', 'b', 'c'), 10, new Set())).toEqual({ hashes: ['a'], bytes: 10 });
    expect(plans.victims(cached('a', 'b'), 1000, new Set(['a', 'b'])).hashes).toEqual([]);
    expect(plans.victims(cached('a'), 0, new Set()).hashes).toEqual([]);
  });
});
