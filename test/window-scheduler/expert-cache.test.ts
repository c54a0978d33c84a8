import { expect, test } from 'vitest';
import type { TileSource } from '../../src/disk-io/tile-source.ts';
import { PotluckError } from '../../src/errors/errors.ts';
import { ExpertCache } from '../../src/window-scheduler/expert-cache.ts';
import { randomSource } from './random-source.ts';

const TILE = 4096;

/** Tile t is filled with t. `fail`: tiles that cannot be read; `hold` keeps reads from ending. */
function source() {
  const log = { reads: [] as number[], fail: new Set<number>(), hold: Promise.resolve() };
  const tiles: TileSource = {
    how: 'test',
    read: async ([tile = -1], memory, offset) => {
      log.reads.push(tile);
      await log.hold;
      if (log.fail.has(tile)) throw new PotluckError('DISK_READ', `tile ${tile}`);
      new Uint8Array(memory, offset, TILE).fill(tile);
    },
    stats: () => ({ reads: 0, bytes: 0, microseconds: 0, cpuMicroseconds: 0, retries: 0, recovered: 0 }),
    close: async () => undefined,
  };
  return { tiles, log };
}

function open(places: number, readDepth = 4) {
  const { tiles, log } = source();
  const memory = new ArrayBuffer((places + 2) * TILE);
  const cache = new ExpertCache({
    memory,
    offset: TILE,
    bytes: places * TILE + 100,
    tileBytes: TILE,
    source: tiles,
    readDepth,
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

test('close waits for reads, and later takes reject', async () => {
  const { cache, log } = open(2);
  let free: () => void = () => undefined;
  log.hold = new Promise(resolve => {
    free = resolve;
  });
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
