import { expect, test } from 'vitest';
import type { TileSource } from '../../src/disk-io/tile-source.ts';
import { PotluckError } from '../../src/errors/errors.ts';
import { ExpertCache, type ExpertCacheOptions } from '../../src/window-scheduler/expert-cache.ts';
import { randomSource } from './random-source.ts';

const TILE = 4096;

/** Tile t is filled with t. `fail`: tiles that cannot be read; `hold` keeps reads of a tile from ending. */
function source() {
  const log = {
    reads: [] as number[],
    fail: new Set<number>(),
    hold: new Map<number, Promise<void>>(),
  };
  const tiles: TileSource = {
    how: 'test',
    read: async ([tile = -1], memory, offset) => {
      log.reads.push(tile);
      await log.hold.get(tile);
      if (log.fail.has(tile)) throw new PotluckError('DISK_READ', `tile ${tile}`);
      new Uint8Array(memory, offset, TILE).fill(tile);
    },
    stats: () => ({ reads: 0, bytes: 0, microseconds: 0, cpuMicroseconds: 0, retries: 0, recovered: 0 }),
    close: async () => undefined,
  };
  return { tiles, log };
}

/** Keeps reads of a tile from ending until it is called. */
function holdReadOf(log: ReturnType<typeof source>['log'], tile: number): () => void {
  let free: () => void = () => undefined;
  log.hold.set(
    tile,
    new Promise(resolve => {
      free = resolve;
    }),
  );
  return free;
}

function open(places: number, readDepth = 4, options: Pick<ExpertCacheOptions, 'deadline'> = {}) {
  const { tiles, log } = source();
  const memory = new ArrayBuffer((places + 2) * TILE);
  const cache = new ExpertCache({
    memory,
    offset: TILE,
    bytes: places * TILE + 100,
    tileBytes: TILE,
    source: tiles,
    readDepth,
    ...options,
  });
  /** Takes and releases all of `wanted`; checks the bytes. */
  const use = async (wanted: readonly number[]) => {
    let left = [...wanted];
    while (left.length > 0) {
      const placed = await cache.take(left, 3);
      expect(placed.length).toBeGreaterThan(0);
      for (const { tile, offset } of placed) {
        expect(left).toContain(tile);
        expect(offset).toBeGreaterThanOrEqual(TILE);
        const bytes = new Uint8Array(memory, offset, TILE);
        expect([bytes[0], bytes[TILE - 1]]).toEqual([tile, tile]);
      }
      expect(new Set(placed.map(({ offset }) => offset)).size).toBe(placed.length);
      cache.release(placed.map(({ tile }) => tile));
      const done = new Set(placed.map(({ tile }) => tile));
      left = left.filter(tile => !done.has(tile));
    }
  };
  return { cache, log, use, memory };
}

test('what was used last stays, what was used least recently makes room', async () => {
  const { cache, log, use } = open(3, 1);
  await use([1, 2, 3]);
  await use([1]);
  await use([4]); // instead of 2
  await use([1, 3, 4]);
  expect(log.reads).toEqual([1, 2, 3, 4]);
  await use([2]); // instead of 1
  await use([1]);
  expect(log.reads).toEqual([1, 2, 3, 4, 2, 1]);
  expect(cache.stats()).toEqual({ heldBytes: 3 * TILE, hits: 4, misses: 6, streamedBytes: 6 * TILE });
});

test('a pass may want more tiles than fit, and tiles in use are not overwritten', async () => {
  for (const depth of [1, 4]) {
    const { use, log } = open(2, depth);
    await use([1, 2, 3, 4, 5]);
    expect([...log.reads].sort()).toEqual([1, 2, 3, 4, 5]);
  }
});

test('any order of passes sees the right bytes, and hits and misses add up', async () => {
  const random = randomSource(3);
  for (const places of [1, 2, 5, 9]) {
    const { cache, use } = open(places);
    let wanted = 0;
    for (let pass = 0; pass < 60; pass++) {
      const tiles = Array.from({ length: 12 }, (_, tile) => tile).filter(() => random() < 0.4);
      wanted += tiles.length;
      await use(tiles);
    }
    const { hits, misses } = cache.stats();
    expect(hits + misses).toBe(wanted);
    if (places === 1) expect(misses).toBeGreaterThan(wanted / 2);
  }
});

test('a read that fails rejects the take, and may be tried again', async () => {
  const { cache, log, use } = open(2);
  log.fail.add(7);
  await expect(use([7])).rejects.toMatchObject({ code: 'DISK_READ' });
  log.fail.clear();
  await use([7, 8, 9]);
  expect(cache.stats().hits).toBe(0);
});

test('a read that fails when nobody waits for its tile fails no other, and is tried again', async () => {
  const { cache, log, use } = open(3);
  log.fail.add(7);
  const free = holdReadOf(log, 7);
  const placed = await cache.take([1, 7], 2); // 7 is still being read
  expect(placed.map(({ tile }) => tile)).toEqual([1]);
  cache.release([1]);
  const other = cache.take([2], 1);
  free();
  expect((await other).map(({ tile }) => tile)).toEqual([2]);
  cache.release([2]);
  await use([3]);
  await expect(use([7])).rejects.toMatchObject({ code: 'DISK_READ', message: 'tile 7' });
  log.fail.clear();
  await use([7]);
  expect(log.reads).toEqual([1, 7, 2, 3, 7, 7]);
});

test('a tile that does not come in time ends the take, not the cache', async () => {
  const timers: (() => void)[] = [];
  const deadline = {
    milliseconds: 5000,
    timers: {
      setTimeout: (call: () => void) => timers.push(call) - 1,
      clearTimeout: (timer: unknown) => delete timers[timer as number],
    },
  };
  const { cache, log, use } = open(2, 4, { deadline });
  const free = holdReadOf(log, 4);
  const late = cache.take([4], 1);
  expect(Object.keys(timers)).toHaveLength(1);
  timers[0]!();
  await expect(late).rejects.toMatchObject({ code: 'DEADLINE', message: expect.stringContaining('Tile 4') });
  free();
  await use([4, 5, 6]);
  expect(log.reads).toEqual([4, 5, 6]);
  expect(Object.keys(timers)).toEqual([]);
});

test('close waits for reads, and later takes reject', async () => {
  const { cache, log } = open(2);
  const free = holdReadOf(log, 1);
  const taking = cache.take([1], 1);
  let closed = false;
  const closing = cache.close().then(() => {
    closed = true;
  });
  await new Promise(resolve => setImmediate(resolve));
  expect(closed).toBe(false);
  free();
  await closing;
  await expect(taking).rejects.toMatchObject({ code: 'STOPPED' });
  await expect(cache.take([1], 1)).rejects.toMatchObject({ code: 'STOPPED' });
});

test('a cache without room for a tile is a defect', () => {
  expect(() => open(0)).toThrow(/no room/);
});
