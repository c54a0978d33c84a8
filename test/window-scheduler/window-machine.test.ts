import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { choosePinned, leastWindowBytes, type WindowPlan } from '../../src/window-scheduler/choose-pinned.ts';
import { layOut } from '../../src/window-scheduler/window-layout.ts';
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
  /** Where the budget lies between the least (0) and everything (1). */
  readonly budget: number;
  readonly readDepth: number;
  readonly ringPages: number;
  readonly passes: number;
  /** Most tiles of a half layer. */
  readonly half: number;
  /** Chances, 0 to 1. */
  readonly failures: number;
  readonly skips: number;
  readonly breaks: number;
  readonly seed: number;
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

  constructor(world: World, givenPlan?: WindowPlan) {
    this.#world = world;
    this.#random = randomSource(world.seed);
    const tiles = world.pages.map((pages, i) => ({ tile: 100 + i, bytes: pages * PAGE }));
    const total = tiles.reduce((sum, { bytes }) => sum + bytes, 0);
    const least = leastWindowBytes(tiles);
    const budget = least + (total - least) * world.budget;
    this.plan = givenPlan ?? choosePinned(tiles, budget, world.ringPages * PAGE);
    this.#order = tiles.map(({ tile }) => tile);
    this.disk = new DiskModel(
      new Map(tiles.map(({ tile, bytes }) => [tile, bytes])),
      new Set(this.#order.filter((_, i) => this.plan.pinned[i])),
      this.plan.pinnedBytes + this.plan.ringBytes,
      this.plan.pinnedBytes,
      world.readDepth,
    );
    this.state = newWindowState(layOut(tiles, this.plan, world.readDepth));
  }

  dispatch(event: WindowEvent): readonly WindowAction[] {
    const { state, actions } = stepWindow(this.state, event);
    // Whoever changes a state that was, instead of making a new one, throws.
    for (const part of [state, state.slots, state.loads, ...state.slots]) Object.freeze(part);
    this.state = state;
    for (const action of actions) if (action.type === 'read') this.disk.begin(action);
    this.#checkRing();
    check(++this.#events < 10_000, 'the window makes no progress');
    return actions;
  }

  #checkRing(): void {
    const { slots, layout } = this.state;
    const used = slots.reduce((sum, { bytes }) => sum + bytes, 0);
    check(used <= layout.ringBytes, 'more bytes are given out than the ring has');
    const places = slots.filter(({ status }) => status !== 'free').map(({ place }) => place);
    check(new Set(places).size === places.length, 'a tile has two slots');
    check(this.state.reading === this.disk.reading.size, 'the reads under way are miscounted');
  }

  /** One read under way ends, any of them; false where there is none. */
  endOneRead(): boolean {
    const tiles = [...this.disk.reading.keys()];
    const tile = tiles[Math.floor(this.#random() * tiles.length)];
    if (tile === undefined) return false;
    const well = this.#random() >= this.#world.failures;
    this.disk.end(tile, well);
    this.dispatch(well ? { type: 'readDone', tile } : { type: 'readFailed', tile, error: 'bad' });
    return true;
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
    for (let pass = 0; pass < this.#world.passes; pass++) this.#pass();
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
        check(failed || this.#held.length > 0, 'a wait without end');
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
    const { streamedPlaces, pinnedPlaces, pinned } = this.state.layout;
    const first = wanted.find(tile => streamedPlaces.has(tile));
    if (first !== undefined) this.dispatch({ type: 'want', tile: first });
    return wanted.filter(tile => {
      const place = pinnedPlaces.get(tile);
      const offset = place === undefined ? readyOffset(this.state, tile) : pinned[place]!.offset;
      if (offset === undefined) return false;
      this.disk.take(tile, offset);
      this.dispatch({ type: 'take', tile });
      this.#held.push(tile);
      return true;
    });
  }
}

const world = (chances: Partial<Record<keyof World, fc.Arbitrary<unknown>>>): fc.Arbitrary<World> =>
  fc.record({
    pages: fc.array(fc.integer({ min: 1, max: 12 }), { minLength: 1, maxLength: 30 }),
    budget: fc.oneof(fc.constant(0), fc.double({ min: 0, max: 1, noNaN: true })),
    readDepth: fc.integer({ min: 1, max: 6 }),
    ringPages: fc.integer({ min: 1, max: 60 }),
    passes: fc.integer({ min: 1, max: 4 }),
    half: fc.integer({ min: 1, max: 8 }),
    failures: fc.constant(0),
    skips: fc.constant(0),
    breaks: fc.constant(0),
    seed: fc.integer(),
    ...chances,
  }) as fc.Arbitrary<World>;

const chance = fc.double({ min: 0, max: 0.4, noNaN: true });

/** Any world, with its seed and path printed where it fails. */
function always(worlds: fc.Arbitrary<World>, holds: (world: World) => void): void {
  fc.assert(fc.property(worlds, holds), { numRuns: 500 });
}

describe('window machine', () => {
  it('streams in order, every tile once a pass', () => {
    always(world({}), given => {
      const simulation = new Simulation(given);
      simulation.load();
      simulation.runPasses();
      const { layout } = simulation.state;
      const streamed = layout.streamed.map(({ tile }) => tile);
      const log = simulation.disk.readLog.filter(tile => layout.streamedPlaces.has(tile));
      expect(log).toEqual(log.map((_, i) => streamed[i % streamed.length]));
      // What is read ahead is in the ring, and nothing was read in vain.
      const ahead = simulation.state.slots.filter(({ status }) => status !== 'free').length;
      expect(log.length).toBe(given.passes * streamed.length + ahead);
      expect(simulation.disk.readLog.length - log.length).toBe(layout.pinned.length);
    });
  });

  it('never writes over a tile in use, and goes on, whatever fails, is skipped or breaks off', () => {
    always(world({ failures: chance, skips: chance, breaks: chance }), given => {
      const simulation = new Simulation(given);
      simulation.load();
      simulation.runPasses();
    });
  });

  it('goes on with a ring of just the largest tile', () => {
    always(world({ failures: chance, skips: chance, breaks: chance }), given => {
      const largest = Math.max(...given.pages) * PAGE;
      const plan = {
        pinned: given.pages.map(() => false),
        pinnedBytes: 0,
        ringBytes: largest,
        streamedBytes: 0,
      };
      const simulation = new Simulation(given, plan);
      simulation.load();
      simulation.runPasses();
    });
  });

  it('goes on with a ring that holds every tile', () => {
    always(world({ failures: chance, skips: chance, breaks: chance }), given => {
      const ringBytes = given.pages.reduce((sum, pages) => sum + pages, 100) * PAGE;
      const plan = { pinned: given.pages.map(() => false), pinnedBytes: 0, ringBytes, streamedBytes: 0 };
      const simulation = new Simulation(given, plan);
      simulation.load();
      simulation.runPasses();
    });
  });

  const small: World = {
    ...{ pages: [1, 1, 1, 1], budget: 0, readDepth: 2, ringPages: 2, passes: 1, half: 1 },
    ...{ failures: 0, skips: 0, breaks: 0, seed: 1 },
  };
  const tileActions = (actions: readonly WindowAction[]) =>
    actions.map(({ type, tile }) => `${type} ${tile}`);

  it('reads ahead across the end of a pass', () => {
    const simulation = new Simulation(small);
    expect(tileActions(simulation.dispatch({ type: 'start' }))).toEqual(['read 100', 'read 101']);
    for (const tile of [100, 101, 102, 103]) {
      simulation.disk.end(tile, true);
      expect(tileActions(simulation.dispatch({ type: 'readDone', tile }))).toEqual([`ready ${tile}`]);
      simulation.dispatch({ type: 'want', tile });
      simulation.dispatch({ type: 'take', tile });
      const next = 100 + ((tile - 100 + 2) % 4);
      expect(tileActions(simulation.dispatch({ type: 'release', tile }))).toEqual([`read ${next}`]);
    }
  });

  it('passes over skipped tiles once', () => {
    const simulation = new Simulation(small);
    simulation.dispatch({ type: 'start' });
    simulation.dispatch({ type: 'skip', tile: 102 });
    simulation.disk.end(100, true);
    simulation.dispatch({ type: 'readDone', tile: 100 });
    expect(tileActions(simulation.dispatch({ type: 'skip', tile: 100 }))).toEqual(['read 103']);
    simulation.disk.end(101, true);
    simulation.dispatch({ type: 'readDone', tile: 101 });
    expect(tileActions(simulation.dispatch({ type: 'skip', tile: 101 }))).toEqual(['read 100']);
    simulation.disk.end(103, true);
    simulation.dispatch({ type: 'readDone', tile: 103 });
    expect(tileActions(simulation.dispatch({ type: 'skip', tile: 103 }))).toEqual(['read 101']);
    simulation.disk.end(100, true);
    simulation.dispatch({ type: 'readDone', tile: 100 });
    expect(tileActions(simulation.dispatch({ type: 'skip', tile: 100 }))).toEqual(['read 102']);
  });

  it('goes straight to a wanted tile that is elsewhere in the pass, skipped or not', () => {
    const simulation = new Simulation({ ...small, pages: [1, 1, 1, 1, 1, 1] });
    simulation.dispatch({ type: 'start' });
    simulation.dispatch({ type: 'skip', tile: 104 });
    expect(simulation.dispatch({ type: 'want', tile: 104 })).toEqual([]);
    simulation.disk.end(101, true);
    expect(simulation.dispatch({ type: 'readDone', tile: 101 })).toEqual([]);
    simulation.disk.end(100, true);
    expect(tileActions(simulation.dispatch({ type: 'readDone', tile: 100 }))).toEqual([
      'read 104',
      'read 105',
    ]);
  });

  it('reads a failed tile again only when it is wanted, to the same place', () => {
    const simulation = new Simulation(small);
    const [, second] = simulation.dispatch({ type: 'start' });
    simulation.disk.end(101, false);
    expect(simulation.dispatch({ type: 'readFailed', tile: 101, error: 'bad' })).toEqual([
      { type: 'fail', tile: 101, error: 'bad' },
    ]);
    expect(simulation.dispatch({ type: 'want', tile: 101 })).toEqual([second]);
    simulation.disk.end(101, true);
    simulation.dispatch({ type: 'readDone', tile: 101 });
    expect(readyOffset(simulation.state, 101)).toBe((second as { offset: number }).offset);
  });

  it('starts no read after an abort', () => {
    const simulation = new Simulation(small);
    simulation.dispatch({ type: 'start' });
    simulation.dispatch({ type: 'abort' });
    simulation.disk.end(100, true);
    expect(tileActions(simulation.dispatch({ type: 'readDone', tile: 100 }))).toEqual(['ready 100']);
    for (const type of ['want', 'take', 'release', 'skip'] as const) {
      expect(simulation.dispatch({ type, tile: 100 })).toEqual([]);
    }
    expect(simulation.dispatch({ type: 'start' })).toEqual([]);
  });
});
