import { describe, expect, test } from 'vitest';
import { passLogitBytes } from '../../src/daemon/memory-account.ts';
import { MemoryKeeper, type OpenMemory } from '../../src/daemon/memory-keeper.ts';
import type { ModelShape } from '../../src/pack/manifest.ts';
import { plainFeatures } from '../../src/pack/plain-shape.ts';
import { kvPageBytes } from '../../src/pack/tile-shape.ts';

const MIB = 1 << 20;
const shape: ModelShape = {
  weights: 'w4',
  width: 512,
  layers: 10,
  queryHeads: 8,
  kvHeads: 4,
  headDim: 64,
  ffnWidth: 1536,
  vocabulary: 8192,
  context: 65_536,
  normEpsilon: 1e-5,
  ...plainFeatures(
    10,
    64,
    Array.from({ length: 32 }, () => 1),
  ),
  tiling: { partsPerKvHead: 1, ffnColumns: 96, headRows: 512 },
  hadamard: 0,
  kvBits: 16,
};

/** A process of 80 MiB beside the plan, on a machine with plenty; what it takes, is asked and is given. */
function machine(budget: number | 'auto' | null, logitRowBytes = 0) {
  const world = {
    beside: 80 * MIB,
    spike: 0,
    available: 4098 * MIB,
    pressure: 0,
    window: 0,
    highest: 0,
    kv: 0,
    logits: 0,
    rows: 0,
    high: 0,
    onPause: (): void => undefined,
    /** Called in place of the window's, where it is busy. */
    resize: null as ((bytes: number) => void) | null,
  };
  const open: OpenMemory = {
    ...{
      shape,
      attentionTiles: 40,
      tileBytes: 500 * MIB,
      leastWindow: 2 * MIB,
      frameBytes: 0,
      logitRowBytes,
      activationBytes: 10 * MIB,
    },
    window: {
      get memoryBytes() {
        return world.window;
      },
      highestBytes: () => Math.max(world.window, world.highest),
      resize: (bytes: number) => {
        if (world.resize) return world.resize(bytes);
        world.window = Math.min(bytes, 500 * MIB);
      },
    },
  };
  let opened = false;
  const plan = () =>
    10 * MIB + 4 * 41 * 512 + passLogitBytes(shape, world.rows) + world.window + world.kv + world.logits;
  const resident = () => world.beside + (opened ? plan() : 0);
  const count = () => {
    world.high = Math.max(world.high, resident() + world.spike);
    world.spike = 0;
    return { residentBytes: resident(), highWaterBytes: world.high };
  };
  class Keeper extends MemoryKeeper {
    override beginPass(pages: number, logitRows: number): void {
      world.rows = Math.max(world.rows, logitRows);
      super.beginPass(pages, logitRows);
    }
  }
  const keeper = new Keeper({
    ...{ budget, windowBytes: null, count },
    system: () => ({ availableBytes: world.available - resident(), pressure: world.pressure }),
    pause: async () => world.onPause(),
  });
  const begin = () => {
    keeper.plan(open);
    opened = true;
    return keeper.open(open);
  };
  return { world, keeper, open, begin, resident };
}

const total = (account: object | null): number => Object.values(account!).reduce((sum, n) => sum + n, 0);

describe('the keeper of memory', () => {
  test('gives tiles what is left, and more once the process is known', () => {
    const { world, keeper, begin, resident } = machine(400 * MIB);
    begin();
    const first = world.window;
    expect(first).toBeGreaterThan(250 * MIB);
    world.kv = kvPageBytes(shape, 40);
    for (let pass = 0; pass < 60; pass++) keeper.beginPass(1, 1);
    expect(world.window).toBeGreaterThan(first + 10 * MIB);
    expect(resident()).toBeLessThan(400 * MIB);
    expect(total(keeper.account)).toBeLessThanOrEqual(400 * MIB);
  });

  test('logits of many sequences take no more than tiles give up for them', () => {
    const { world, keeper, begin, resident } = machine(400 * MIB, 256 << 10);
    begin();
    world.kv = kvPageBytes(shape, 40);
    world.logits = 256 << 10;
    for (let pass = 0; pass < 60; pass++) keeper.beginPass(1, 1);
    keeper.tick();
    const [before, window] = [resident(), world.window];
    keeper.beginPass(1, 30);
    expect(world.window).toBeLessThanOrEqual(window - 31 * (256 << 10));
    world.logits = 32 * (256 << 10);
    expect(resident()).toBeLessThanOrEqual(before);
    keeper.tick();
    keeper.beginPass(1, 1);
    expect(world.window).toBeGreaterThan(window - 31 * (256 << 10) - MIB);
    expect(total(keeper.account)).toBeLessThanOrEqual(400 * MIB);
  });

  test('a start leaves room for the tokenizer', () => {
    const { keeper, open } = machine(18 * MIB);
    const least = (tokenizerBytes: number): number => {
      try {
        keeper.check(open, tokenizerBytes);
      } catch (error) {
        return Number(/at least (\d+) MiB/.exec(String(error))?.[1]);
      }
      throw new Error('16 MiB were enough');
    };
    expect(least(7 * MIB)).toBe(least(0) + 7);
  });

  test('unpins when the process grows, and pins again a while after it shrank', () => {
    const { world, keeper, begin, resident } = machine(400 * MIB);
    begin();
    world.kv = kvPageBytes(shape, 40);
    for (let pass = 0; pass < 60; pass++) keeper.beginPass(1, 1);
    const before = world.window;
    world.beside += 8 * MIB;
    keeper.tick();
    expect(world.window).toBeLessThanOrEqual(before - 8 * MIB);
    expect(resident()).toBeLessThan(400 * MIB);
    world.beside -= 8 * MIB;
    keeper.tick();
    expect(world.window).toBeLessThanOrEqual(before - 8 * MIB);
    for (let look = 0; look < 130; look++) keeper.tick();
    expect(world.window).toBeGreaterThanOrEqual(before - 1 * MIB);
  });

  test('sees a peak between two looks by the high mark', () => {
    const { world, keeper, begin } = machine(400 * MIB);
    begin();
    world.kv = kvPageBytes(shape, 40);
    for (let pass = 0; pass < 60; pass++) keeper.beginPass(1, 1);
    keeper.tick();
    const before = world.window;
    world.spike = 9 * MIB;
    keeper.tick();
    expect(world.window).toBe(before - 9 * MIB);
  });

  test('what loading took for a while is forgotten when it is done', () => {
    const { world, keeper, begin } = machine(400 * MIB);
    begin();
    const before = world.window;
    world.beside += 100 * MIB;
    keeper.tick();
    // what it grew by was expected in part
    expect(world.window).toBeLessThan(before - 70 * MIB);
    world.beside -= 100 * MIB;
    keeper.loaded();
    expect(world.window).toBe(before);
  });

  test('tiles that were given back before the next look are not taken for the process', () => {
    const { world, keeper, begin } = machine(400 * MIB);
    begin();
    for (let pass = 0; pass < 60; pass++) keeper.beginPass(1, 1);
    keeper.tick();
    const before = world.window;
    world.spike = 72 * MIB;
    world.highest = before + 72 * MIB;
    keeper.tick();
    expect(world.window).toBe(before);
  });

  test('the memory of a plan that ended is not taken for the process', () => {
    const { world, keeper, begin } = machine(400 * MIB);
    begin();
    for (let pass = 0; pass < 60; pass++) keeper.beginPass(1, 1);
    world.spike = 1 * MIB;
    keeper.close();
    const first = world.window;
    // A look before it is given back.
    keeper.tick();
    world.window = 0;
    keeper.freed();
    begin();
    expect(world.window).toBeGreaterThan(first - 24 * MIB);
  });

  test('what a process grew is taken from what it is expected to grow, in later plans too', () => {
    const { world, keeper, open } = machine(400 * MIB);
    keeper.check(open, 7 * MIB);
    const fresh = keeper.plan(open).account;
    world.beside += 20 * MIB;
    const grown = keeper.plan(open).account;
    expect(grown.process + grown.reserve).toBe(fresh.process + fresh.reserve);
    expect(grown.weights).toBe(fresh.weights);
    world.beside += 60 * MIB;
    const outgrown = keeper.plan(open).account;
    expect(outgrown.reserve).toBe(8 * MIB);
    expect(outgrown.weights).toBe(
      fresh.weights - (outgrown.process + 8 * MIB - fresh.process - fresh.reserve),
    );
  });

  test('a worker that renders chats gets room from tiles before it starts, and tiles get it back when it ended', async () => {
    const { world, keeper, begin, resident } = machine(400 * MIB);
    const { account, leastWeights } = begin();
    world.kv = kvPageBytes(shape, 40);
    // so much of the tiles may be asked for later that a start is refused where it is not there
    expect(leastWeights).toBeLessThanOrEqual(account.weights - 14 * MIB);
    for (let pass = 0; pass < 60; pass++) keeper.beginPass(1, 1);
    keeper.tick();
    const before = world.window;
    // A pass runs: tiles stay until it ends.
    let shrunk: (() => void) | undefined;
    world.resize = bytes => {
      shrunk = () => {
        world.window = bytes;
      };
    };
    let pauses = 0;
    world.onPause = () => {
      if (++pauses === 3) shrunk!();
    };
    await keeper.roomForWorker();
    expect(pauses).toBe(3);
    expect(world.window).toBe(before - 14 * MIB);
    world.resize = null;
    world.beside += 14 * MIB;
    keeper.tick();
    expect(world.window).toBe(before - 14 * MIB);
    expect(resident()).toBeLessThan(400 * MIB);
    keeper.workerEnded();
    world.beside -= 14 * MIB;
    for (let look = 0; look < 130; look++) keeper.tick();
    expect(world.window).toBe(before);
  });

  test('a worker for which tiles make no room is not started', async () => {
    const { world, keeper, begin } = machine(400 * MIB);
    begin();
    const before = world.window;
    world.resize = () => undefined;
    let pauses = 0;
    world.onPause = () => pauses++;
    await expect(keeper.roomForWorker()).rejects.toMatchObject({ code: 'DEADLINE' });
    expect(pauses).toBe(12_000);
    world.resize = null;
    keeper.tick();
    expect(world.window).toBe(before);
  });

  test('a plan that works as it always does takes nothing from what the next one is promised', () => {
    const { keeper, open, begin, world } = machine(400 * MIB);
    const { account } = begin();
    world.kv = kvPageBytes(shape, 40);
    for (let pass = 0; pass < 60; pass++) keeper.beginPass(1, 1);
    expect(keeper.account!.reserve).toBe(8 * MIB);
    expect(keeper.plan(open).account.reserve).toBe(account.reserve);
  });

  test('KV pages take room from tiles before they are written', () => {
    const { world, keeper, begin, resident } = machine(300 * MIB);
    const { mostKvPages } = begin();
    for (let pages = 0; pages <= mostKvPages; pages += 97) {
      keeper.beginPass(pages, 1);
      world.kv = pages * kvPageBytes(shape, 40);
      expect(resident()).toBeLessThanOrEqual(300 * MIB);
    }
    expect(world.window).toBeGreaterThanOrEqual(2 * MIB - 4096);
    expect(keeper.notes).toEqual([]);
  });

  test('does what it can, and says so, where the process alone is over the budget', () => {
    const { world, keeper, begin } = machine(300 * MIB);
    begin();
    world.beside = 290 * MIB;
    keeper.tick();
    expect(world.window).toBe(2 * MIB);
    expect(keeper.notes.join()).toMatch(/may not hold/);
    world.beside = 80 * MIB;
    for (let look = 0; look < 130; look++) keeper.tick();
    expect(keeper.notes).toEqual([]);
    expect(world.window).toBeGreaterThan(100 * MIB);
  });

  test('without a budget every tile stays', () => {
    const { world, keeper, begin } = machine(null);
    begin();
    keeper.tick();
    expect(world.window).toBe(500 * MIB);
    expect(keeper.weightBytes).toBe(Infinity);
  });

  test('auto takes what the system can spare, and gives it back under pressure', () => {
    const { world, keeper, begin, resident } = machine('auto');
    world.available = 4098 * MIB;
    begin();
    expect(world.window).toBe(500 * MIB);
    const before = keeper.budget!;
    expect(before).toBeLessThan(4098 * MIB);
    // Another program takes all but 400 MiB.
    world.available = 400 * MIB;
    for (let look = 0; look < 10; look++) keeper.tick();
    expect(resident()).toBeLessThan(400 * MIB);
    expect(keeper.notes.join()).toMatch(/short/);
    const short = world.window;
    world.pressure = 0.5;
    keeper.tick();
    expect(world.window).toBeLessThan(short);
    // It ends.
    world.pressure = 0;
    world.available = 4098 * MIB;
    for (let look = 0; look < 200; look++) keeper.tick();
    expect(keeper.budget).toBe(before);
    expect(world.window).toBe(500 * MIB);
    expect(keeper.notes).toEqual([]);
  });
});
