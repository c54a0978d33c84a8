import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  leastRingBytes,
  leastWindowBytes,
  pinnedCount,
  planWindow,
  spreadOrder,
  type WindowPlan,
} from '../../src/window-scheduler/plan-window.ts';
import { makeRuns } from '../../src/window-scheduler/tile-runs.ts';
import { layOut, pinnedEnd } from '../../src/window-scheduler/window-layout.ts';
import {
  newWindowState,
  readyOffset,
  stepWindow,
  type WindowAction,
  type WindowEvent,
  type WindowState,
} from '../../src/window-scheduler/window-machine.ts';
import { check, DiskModel } from './disk-model.ts';
import { randomSource } from './random-source.ts';

const PAGE = 4096;

interface World {
  /** Pages of each tile, in execution order. */
  readonly pages: readonly number[];
  /** Pages of a run, at the most. */
  readonly runPages: number;
  /** Where the budget lies between the least (0) and everything (1). */
  readonly budget: number;
  readonly readDepth: number;
  readonly passes: number;
  /** Most tiles of a half layer. */
  readonly half: number;
  /** Chances, 0 to 1. */
  readonly failures: number;
  readonly skips: number;
  readonly breaks: number;
  readonly resizes: number;
  readonly seed: number;
}

function tilesOf(pages: readonly number[]) {
  let offset = 0;
  return pages.map((count, i) => {
    const tile = { tile: 100 + i, bytes: count * PAGE, place: { path: 'x', offset } };
    offset += tile.bytes;
    return tile;
  });
}

/** A plan with runs of the world's size and a ring that holds the largest tile at the least. */
function planOf({ pages, runPages, budget: part }: World): { plan: WindowPlan; budget: number } {
  const tiles = tilesOf(pages);
  const total = tiles.reduce((sum, { bytes }) => sum + bytes, 0);
  const least = leastWindowBytes(tiles);
  const budget = least + (total - least) * part;
  const runs = makeRuns(tiles, Math.min(runPages * PAGE, planWindow(tiles, budget).ringBytes));
  return { plan: { ...planWindow(tiles, budget), runs, pinOrder: spreadOrder(runs.length) }, budget };
}

/** One device that does passes, with reads that end in any order and fail at times. */
class Simulation {
  readonly plan: WindowPlan;
  readonly disk: DiskModel;
  state: WindowState;
  readonly #world: World;
  readonly #random: () => number;
  readonly #order: readonly number[];
  readonly #held: number[] = [];
  #events = 0;
  /** Offset of each run in the ring. */
  #places = new Map<number, number>();

  constructor(world: World, given?: { plan: WindowPlan; budget: number }) {
    this.#world = world;
    this.#random = randomSource(world.seed);
    const { plan, budget } = given ?? planOf(world);
    this.plan = plan;
    this.#order = plan.runs.flatMap(({ tiles }) => tiles.map(({ tile }) => tile));
    const layout = layOut(plan, world.readDepth);
    this.disk = new DiskModel(
      plan.runs.map(({ bytes }) => bytes),
      pinnedEnd(layout, plan.runs.length),
      plan.ringBytes,
      world.readDepth,
    );
    this.state = newWindowState(layout);
    this.dispatch({ type: 'pin', count: pinnedCount(plan, budget) });
  }

  dispatch(event: WindowEvent): readonly WindowAction[] {
    const { state, actions } = stepWindow(this.state, event);
    // Whoever changes a state that was, instead of making a new one, throws.
    for (const part of [state, state.slots, state.loads, ...state.slots]) Object.freeze(part);
    this.state = state;
    for (const action of actions) {
      if (action.type === 'discard') this.disk.discard(action.run);
    }
    const before = this.#places;
    this.#places = new Map(state.slots.map(({ run, offset }) => [run, offset]));
    for (const action of actions) {
      if (action.type !== 'read') continue;
      this.disk.begin(action);
      const end = action.offset + this.plan.runs[action.run]!.bytes;
      const again = before.get(action.run) === action.offset;
      check(
        action.to === 'home' || again || end <= state.ringBytes,
        'a read goes behind the end of the ring',
      );
    }
    this.#checkRing();
    check(++this.#events < 20_000, 'the window makes no progress');
    return actions;
  }

  #checkRing(): void {
    const { slots, layout } = this.state;
    const used = slots.reduce((sum, { bytes }) => sum + bytes, 0);
    check(used <= layout.ringBytes, 'more bytes are given out than the ring has');
    check(this.state.reading === this.disk.reading.size, 'the reads under way are miscounted');
  }

  /** One read under way ends, any of them; false where there is none. */
  endOneRead(): boolean {
    const keys = [...this.disk.reading.keys()];
    const key = keys[Math.floor(this.#random() * keys.length)];
    if (key === undefined) return false;
    this.end(key, this.#random() >= this.#world.failures);
    return true;
  }

  end(key: string, well: boolean): readonly WindowAction[] {
    const [to, run] = key.split(' ') as ['home' | 'ring', string];
    this.disk.end(key, well);
    const event = { run: Number(run), to };
    return this.dispatch(
      well ? { type: 'readDone', ...event } : { type: 'readFailed', ...event, error: 'bad' },
    );
  }

  load(): void {
    do {
      this.dispatch({ type: 'start' });
      while (this.state.loads.some(load => load === 'reading' || load === 'waiting')) {
        check(this.endOneRead(), 'pinned tiles are not read');
      }
    } while (this.state.loads.includes('failed'));
  }

  runPasses(): void {
    for (let pass = 0; pass < this.#world.passes; pass++) {
      this.#pass();
      if (this.#random() < this.#world.resizes) {
        const count = Math.floor(this.#random() * (this.plan.runs.length + 1));
        this.dispatch({ type: 'pin', count });
        const least = leastRingBytes(this.plan);
        const more = Math.floor((this.#random() * (this.plan.ringBytes - least)) / PAGE) * PAGE;
        this.dispatch({ type: 'ring', bytes: least + more });
      }
    }
  }

  #pass(): void {
    const random = this.#random;
    let at = 0;
    while (at < this.#order.length) {
      const count = 1 + Math.floor(random() * this.#world.half);
      const half = this.#order.slice(at, at + count);
      at += count;
      if (random() < this.#world.breaks) return;
      if (random() < this.#world.skips) for (const tile of half) this.dispatch({ type: 'skip', tile });
      else this.#halfLayer(half);
    }
  }

  #halfLayer(half: readonly number[]): void {
    let wanted = half;
    while (wanted.length > 0) {
      const got = this.#take(wanted);
      wanted = wanted.filter(tile => !got.includes(tile));
      if (got.length === 0) {
        // Nothing to compute with: a read is under way, or one failed, and the next take reads again.
        if (this.endOneRead()) continue;
        const failed = this.state.slots.some(({ status }) => status === 'failed');
        const notLoaded = this.state.loads.includes('failed');
        check(failed || notLoaded || this.#held.length > 0, 'a wait without end');
        this.#release();
        continue;
      }
      while (this.#random() < 0.5 && this.endOneRead());
      // At times compute is still at these tiles when the next are taken.
      if (this.#random() < 0.7) this.#release();
    }
    this.#release();
  }

  #release(): void {
    for (const tile of this.#held.splice(0)) {
      this.disk.release(tile);
      this.dispatch({ type: 'release', tile });
    }
  }

  #take(wanted: readonly number[]): number[] {
    const { places, runs } = this.state.layout;
    const first = wanted.find(tile => readyOffset(this.state, tile)?.pinned !== true);
    if (first !== undefined) this.dispatch({ type: 'want', tile: first });
    return wanted.filter(tile => {
      const at = readyOffset(this.state, tile);
      if (at === undefined) return false;
      const { run } = places.get(tile)!;
      this.disk.take(tile, run, at.offset, runs[run]!.tiles.find(each => each.tile === tile)!.bytes);
      if (!at.pinned) this.dispatch({ type: 'take', tile });
      this.#held.push(tile);
      return true;
    });
  }
}

const world = (chances: Partial<Record<keyof World, fc.Arbitrary<unknown>>>): fc.Arbitrary<World> =>
  fc.record({
    pages: fc.array(fc.integer({ min: 1, max: 12 }), { minLength: 1, maxLength: 30 }),
    runPages: fc.integer({ min: 1, max: 40 }),
    budget: fc.oneof(fc.constant(0), fc.double({ min: 0, max: 1, noNaN: true })),
    readDepth: fc.integer({ min: 1, max: 6 }),
    passes: fc.integer({ min: 1, max: 4 }),
    half: fc.integer({ min: 1, max: 8 }),
    failures: fc.constant(0),
    skips: fc.constant(0),
    breaks: fc.constant(0),
    resizes: fc.constant(0),
    seed: fc.integer(),
    ...chances,
  }) as fc.Arbitrary<World>;

const chance = fc.double({ min: 0, max: 0.4, noNaN: true });

/** Any world, with its seed and path printed where it fails. */
function always(worlds: fc.Arbitrary<World>, holds: (world: World) => void): void {
  fc.assert(fc.property(worlds, holds), { numRuns: 500 });
}

function runs(given: World, plan?: { plan: WindowPlan; budget: number }): Simulation {
  const simulation = new Simulation(given, plan);
  simulation.load();
  simulation.runPasses();
  return simulation;
}

describe('window machine', () => {
  it('streams in order, every run once a pass', () => {
    always(world({}), given => {
      const { state, disk } = runs(given);
      const streamed = state.layout.runs.map((_, run) => run).filter(run => state.loads[run] === 'none');
      expect(disk.ringLog).toEqual(disk.ringLog.map((_, i) => streamed[i % streamed.length]));
      // What is read ahead is in the ring, and nothing was read in vain.
      const ahead = state.slots.filter(({ status }) => status !== 'free').length;
      expect(disk.ringLog.length).toBe(given.passes * streamed.length + ahead);
    });
  });

  it('never writes over a tile in use, and goes on, whatever fails, is skipped or breaks off', () => {
    always(world({ failures: chance, skips: chance, breaks: chance }), given => void runs(given));
  });

  it('does so while more is pinned, and less', () => {
    const passes = fc.integer({ min: 2, max: 8 });
    const resizes = fc.constant(0.7);
    always(
      world({ failures: chance, skips: chance, breaks: chance, resizes, passes }),
      given => void runs(given),
    );
  });

  it.each(['just the largest tile', 'every tile'])('goes on with a ring of %s', size => {
    always(world({ failures: chance, skips: chance, breaks: chance }), given => {
      const tiles = tilesOf(given.pages);
      const largest = Math.max(...tiles.map(({ bytes }) => bytes));
      const total = tiles.reduce((sum, { bytes }) => sum + bytes, 0);
      const ringBytes = size === 'every tile' ? total + 100 * PAGE : largest;
      const parts = makeRuns(tiles, Math.min(ringBytes, given.runPages * PAGE));
      const plan = { runs: parts, pinOrder: spreadOrder(parts.length), ringBytes, totalBytes: total };
      runs(given, { plan, budget: 0 });
    });
  });

  const small: World = {
    ...{ pages: [1, 1, 1, 1], runPages: 1, budget: 0, readDepth: 2, passes: 1, half: 1 },
    ...{ failures: 0, skips: 0, breaks: 0, resizes: 0, seed: 1 },
  };
  const names = (actions: readonly WindowAction[]) =>
    actions.map(
      action => `${action.type} ${action.run}${'to' in action && action.to === 'home' ? ' home' : ''}`,
    );

  it('reads ahead across the end of a pass', () => {
    const simulation = new Simulation(small);
    expect(names(simulation.dispatch({ type: 'start' }))).toEqual(['read 0', 'read 1']);
    for (const run of [0, 1, 2, 3]) {
      expect(names(simulation.end(`ring ${run}`, true))).toEqual([`ready ${run}`]);
      simulation.dispatch({ type: 'want', tile: 100 + run });
      simulation.dispatch({ type: 'take', tile: 100 + run });
      expect(names(simulation.dispatch({ type: 'release', tile: 100 + run }))).toEqual([
        `read ${(run + 2) % 4}`,
      ]);
    }
  });

  it('gives a run back when all its tiles were computed or skipped', () => {
    const tiles = tilesOf([1, 1, 1, 1, 1, 1]);
    const plan = {
      runs: makeRuns(tiles, 3 * PAGE),
      pinOrder: [0, 1],
      ringBytes: 3 * PAGE,
      totalBytes: 6 * PAGE,
    };
    const simulation = new Simulation(small, { plan, budget: 0 });
    simulation.dispatch({ type: 'start' });
    simulation.end('ring 0', true);
    for (const tile of [100, 102]) {
      simulation.dispatch({ type: 'take', tile });
      expect(simulation.dispatch({ type: 'release', tile })).toEqual([]);
    }
    expect(names(simulation.dispatch({ type: 'skip', tile: 101 }))).toEqual(['read 1']);
  });

  it('passes over skipped tiles once', () => {
    const simulation = new Simulation(small);
    simulation.dispatch({ type: 'start' });
    simulation.dispatch({ type: 'skip', tile: 102 });
    simulation.end('ring 0', true);
    expect(names(simulation.dispatch({ type: 'skip', tile: 100 }))).toEqual(['read 3']);
    simulation.end('ring 1', true);
    expect(names(simulation.dispatch({ type: 'skip', tile: 101 }))).toEqual(['read 0']);
    simulation.end('ring 3', true);
    expect(names(simulation.dispatch({ type: 'skip', tile: 103 }))).toEqual(['read 1']);
    simulation.end('ring 0', true);
    expect(names(simulation.dispatch({ type: 'skip', tile: 100 }))).toEqual(['read 2']);
  });

  it('goes straight to a wanted tile that is elsewhere in the pass, skipped or not', () => {
    const simulation = new Simulation({ ...small, pages: [1, 1, 1, 1, 1, 1] });
    simulation.dispatch({ type: 'start' });
    simulation.dispatch({ type: 'skip', tile: 104 });
    expect(simulation.dispatch({ type: 'want', tile: 104 })).toEqual([]);
    expect(names(simulation.end('ring 1', true))).toEqual(['read 4']);
    expect(names(simulation.end('ring 0', true))).toEqual(['read 5']);
  });

  it('reads a failed run again only when a tile of it is wanted, to the same place', () => {
    const simulation = new Simulation(small);
    const [, second] = simulation.dispatch({ type: 'start' });
    expect(simulation.end('ring 1', false)).toEqual([{ type: 'fail', run: 1, to: 'ring', error: 'bad' }]);
    expect(simulation.dispatch({ type: 'want', tile: 101 })).toEqual([second]);
    simulation.end('ring 1', true);
    expect(readyOffset(simulation.state, 101)?.offset).toBe((second as { offset: number }).offset);
  });

  it('pins while it streams, and gives homes back only after what is read to them', () => {
    const simulation = new Simulation(small);
    simulation.dispatch({ type: 'start' });
    simulation.end('ring 0', true);
    simulation.end('ring 1', true);
    expect(names(simulation.dispatch({ type: 'pin', count: 2 }))).toEqual(['read 0 home', 'read 2 home']);
    expect(names(simulation.end('home 0', true))).toEqual(['ready 0 home', 'read 3']);
    expect(names(simulation.dispatch({ type: 'pin', count: 0 }))).toEqual(['discard 0']);
    expect(names(simulation.end('home 2', true))).toEqual(['discard 2']);
    expect(readyOffset(simulation.state, 100)).toBe(undefined);
  });

  it('starts no read after an abort', () => {
    const simulation = new Simulation(small);
    simulation.dispatch({ type: 'start' });
    simulation.dispatch({ type: 'abort' });
    expect(names(simulation.end('ring 0', true))).toEqual(['ready 0']);
    for (const type of ['want', 'take', 'release', 'skip'] as const) {
      expect(simulation.dispatch({ type, tile: 100 })).toEqual([]);
    }
    expect(simulation.dispatch({ type: 'pin', count: 4 })).toEqual([]);
    expect(simulation.dispatch({ type: 'start' })).toEqual([]);
  });
});
