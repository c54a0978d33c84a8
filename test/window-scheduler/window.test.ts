import { open, writeFile } from 'node:fs/promises';
import { describe, expect, it, onTestFinished } from 'vitest';
import { createFileTileSource } from '../../src/disk-io/file-tile-source.ts';
import { createNativeTileSource } from '../../src/disk-io/native-tile-source.ts';
import type { TileSource } from '../../src/disk-io/tile-source.ts';
import { leastWindowBytes, pinnedCount, planWindow } from '../../src/window-scheduler/plan-window.ts';
import { type PlacedNow, Window, type WindowOptions } from '../../src/window-scheduler/window.ts';
import { type TileOfFile, temporaryFolder, writeTiles } from '../disk-io/tile-files.ts';
import { addon } from '../kernels/addon-under-test.ts';

const PAGE = 4096;

/** A source whose reads end when the test says so. */
class ManualSource implements TileSource {
  readonly how = 'manual';
  readonly pending = new Map<number, { resolve(): void; reject(error: unknown): void }>();

  read(tiles: readonly number[]): Promise<void> {
    expect(tiles).toHaveLength(1);
    const tile = tiles[0]!;
    expect(this.pending.has(tile)).toBe(false);
    return new Promise((resolve, reject) => this.pending.set(tile, { resolve, reject }));
  }

  async end(tile: number, error?: Error): Promise<void> {
    const { resolve, reject } = this.pending.get(tile)!;
    this.pending.delete(tile);
    if (error) reject(error);
    else resolve();
    await settled();
  }

  stats() {
    return { reads: 0, bytes: 0, microseconds: 0, cpuMicroseconds: 0, retries: 0, recovered: 0 };
  }

  async close(): Promise<void> {
    await settled();
  }
}

const settled = (): Promise<void> => new Promise(resolve => setImmediate(resolve));

/** `count` tiles of a page each, in a memory for `room` of them: two in the ring, the others pinned. */
function manualWindow(count: number, room: number, options: Partial<WindowOptions> = {}) {
  const tiles = Array.from({ length: count }, (_, tile) => ({ tile, bytes: PAGE }));
  const source = new ManualSource();
  const budget = room * PAGE;
  const plan = { ...planWindow(tiles, Math.min(budget, 2 * PAGE)), ringBytes: 2 * PAGE };
  let time = 0;
  const discarded: number[] = [];
  const window = new Window({
    ...{ plan, source, budget, memory: new ArrayBuffer((count + 2) * PAGE), readDepth: 2 },
    discard: (offset, bytes) => {
      for (let at = offset; at < offset + bytes; at += PAGE) discarded.push(at / PAGE);
    },
    now: () => time++,
    ...options,
  });
  const pinned = plan.pinOrder.slice(0, pinnedCount(plan, budget)).sort((x, y) => x - y);
  const streamed = tiles.map(({ tile }) => tile).filter(tile => !pinned.includes(tile));
  return { window, source, pinned, streamed, plan, discarded };
}

async function outcome<T>(promise: Promise<T> | T): Promise<unknown> {
  try {
    return await promise;
  } catch (error) {
    return error;
  }
}

/** Where the tiles lie, or throws where the answer is a promise. */
function atOnce(placed: PlacedNow[] | Promise<PlacedNow[]>): PlacedNow[] {
  if (placed instanceof Promise) throw new Error('take waits');
  return placed;
}

describe('a window whose disk has nothing to read', () => {
  it('is pressed by a quarter of the ring that is handed out, and by half of the ring while the disk reads', async () => {
    const ring = { ...manualWindow(40, 20).plan, ringBytes: 16 * PAGE };
    const { window, source } = manualWindow(40, 20, { plan: ring, readDepth: 2 });
    const streamed = Array.from({ length: 40 }, (_, tile) => tile).filter(
      tile => ring.pinOrder.indexOf(tile) >= pinnedCount(ring, 20 * PAGE),
    );
    void window.start();
    while (source.pending.size > 0) await source.end([...source.pending.keys()][0]!);
    await window.pass(async () => {
      const take = (count: number): number[] =>
        Array.from({ length: count }, () => {
          const tile = next++;
          atOnce(window.take([tile]));
          return tile;
        });
      let next = 0;
      let taken: number[] = [];
      while (!window.pressed) taken.push(...take(1));
      expect(taken.filter(tile => streamed.includes(tile))).toHaveLength(4);
      window.release(taken);
      await settled();
      // Reads are under way now, in place of what was given back.
      expect(source.pending.size).toBe(2);
      expect(window.pressed).toBe(false);
      taken = take(4);
      expect(window.pressed).toBe(false);
      window.release(taken);
    });
  });
});

describe('a window that holds everything', () => {
  it('is never pressed, with a ring and without one', async () => {
    for (const ringBytes of [0, 2 * PAGE]) {
      const { plan } = manualWindow(4, 8);
      const { window, source } = manualWindow(4, 8, { plan: { ...plan, ringBytes } });
      const started = window.start();
      while (source.pending.size > 0) await source.end([...source.pending.keys()][0]!);
      await started;
      expect(window.resident).toBe(true);
      await window.pass(async () => {
        atOnce(window.take([0, 1, 2, 3]));
        expect(window.pressed, `ring of ${ringBytes}`).toBe(false);
      });
    }
  });

  it('answers at once, and always the same', async () => {
    const { window, source } = manualWindow(4, 4);
    const started = window.start();
    for (const tile of [0, 1, 2, 3]) await source.end(tile);
    await started;
    expect(window.resident).toBe(true);
    for (let pass = 0; pass < 2; pass++) {
      expect(atOnce(window.take([1, 2]))).toEqual([
        { tile: 1, offset: 4 * PAGE },
        { tile: 2, offset: 3 * PAGE },
      ]);
      window.release([1, 2]);
      window.skip([3]);
    }
    expect(atOnce(window.take([]))).toEqual([]);
    expect(source.pending.size).toBe(0);
    expect(window.stats()).toEqual({
      ...{ pinnedBytes: 4 * PAGE, ringBytes: 0, streamedBytesPerPass: 0, streamedBytes: 0 },
      ...{ reads: 4, failedReads: 0, waitMicroseconds: 0 },
    });
    await window.close();
    expect(() => window.take([1])).toThrow(/closed/);
  });

  it('says which load failed, and loads it when started again', async () => {
    const { window, source } = manualWindow(3, 3);
    const first = outcome(window.start());
    await source.end(0);
    await source.end(1, new Error('bad disk'));
    expect(await first).toMatchObject({ message: 'bad disk' });
    const second = window.start();
    await source.end(2);
    await source.end(1);
    await second;
    expect(atOnce(window.take([0, 1, 2]))).toHaveLength(3);
    await window.close();
  });

  it('is for its own tiles, after its start', async () => {
    const { window, source } = manualWindow(1, 1);
    expect(() => window.take([0])).toThrow(/before start/);
    const started = window.start();
    await source.end(0);
    await started;
    expect(() => window.take([5])).toThrow(/tile 5 is not of this window/);
    await window.close();
  });
});

describe('a window whose budget changes', () => {
  it('pins more, gives memory back from the end, and drops the ring when nothing streams', async () => {
    const { window, source, discarded, plan } = manualWindow(6, 4);
    const start = window.start();
    for (const tile of [0, 4]) await source.end(tile);
    await start;
    expect(window.memoryBytes).toBe(4 * PAGE);
    window.resize(6 * PAGE);
    expect([...source.pending.keys()]).toEqual([1, 2]);
    for (let i = 0; i < 12 && !window.resident; i++)
      for (const tile of [...source.pending.keys()]) await source.end(tile);
    expect(window.resident).toBe(true);
    expect(discarded).toEqual([0, 1]);
    expect(window.stats()).toMatchObject({ pinnedBytes: 6 * PAGE, ringBytes: 0, streamedBytesPerPass: 0 });
    expect(window.memoryBytes).toBe(6 * PAGE);
    discarded.length = 0;
    window.resize(3 * PAGE);
    expect(window.memoryBytes).toBeLessThan(6 * PAGE);
    expect(window.highestBytes()).toBe(6 * PAGE);
    expect(window.highestBytes()).toBe(window.memoryBytes);
    expect(discarded.map(at => plan.pinOrder[at - 2])).toEqual(plan.pinOrder.slice(1));
    expect(window.resident).toBe(false);
    expect(atOnce(window.take([plan.pinOrder[0]!]))).toHaveLength(1);
    for (const tile of [...source.pending.keys()]) await source.end(tile);
    expect(window.stats()).toMatchObject({ pinnedBytes: PAGE, streamedBytesPerPass: 5 * PAGE });
    await window.close();
  });

  it('gives the end of a ring back without a pass, also what is being read', async () => {
    const { plan } = manualWindow(6, 4);
    const { window, source, discarded } = manualWindow(6, 4, { plan: { ...plan, ringBytes: 4 * PAGE } });
    const started = window.start();
    for (const tile of [0, 1, 2]) await source.end(tile);
    await started;
    await window.take([0]);
    window.release([0]);
    await settled();
    expect([...source.pending.keys()]).toEqual([3, 4]);
    window.resize(PAGE);
    // Tile 2 is read again where 4 was to be, and 1 stays: no pass takes it.
    await source.end(4);
    expect([...source.pending.keys()]).toEqual([3, 2]);
    expect([discarded, window.memoryBytes]).toEqual([[], 4 * PAGE]);
    await source.end(3);
    expect([discarded, window.memoryBytes]).toEqual([[2, 3], 2 * PAGE]);
    await source.end(2);
    expect([await window.take([1]), await window.take([2])]).toEqual([
      [{ tile: 1, offset: PAGE }],
      [{ tile: 2, offset: 0 }],
    ]);
  });

  it('makes the ring smaller where nothing is left to unpin, gives its end back at once, and grows again', async () => {
    const { plan } = manualWindow(6, 4);
    const { window, source, discarded } = manualWindow(6, 4, { plan: { ...plan, ringBytes: 4 * PAGE } });
    const started = window.start();
    for (const tile of [0, 1, 2, 3]) await source.end(tile);
    await started;
    expect(window.memoryBytes).toBe(4 * PAGE);
    const use = async (tile: number): Promise<number> => {
      const placed = await window.take([tile]);
      window.release([tile]);
      await settled();
      return placed[0]!.offset / PAGE;
    };
    window.resize(PAGE);
    expect(window.stats()).toMatchObject({ pinnedBytes: 0, ringBytes: 2 * PAGE });
    expect([discarded, window.memoryBytes]).toEqual([[2, 3], 2 * PAGE]);
    expect(window.highestBytes()).toBe(4 * PAGE);
    expect([await use(0), await use(1)]).toEqual([0, 1]);
    // What lay there is read again.
    await source.end(2);
    await source.end(3);
    expect([await use(2), await use(3)]).toEqual([0, 1]);
    await source.end(4);
    await source.end(5);
    expect([await use(4), await use(5)]).toEqual([0, 1]);
    window.resize(4 * PAGE);
    for (const tile of [0, 1, 2, 3]) await source.end(tile);
    expect(window.stats()).toMatchObject({ ringBytes: 4 * PAGE });
    expect([await use(0), await use(1), await use(2), await use(3)].sort()).toEqual([0, 1, 2, 3]);
    expect(window.memoryBytes).toBe(4 * PAGE);
  });

  it('waits for the end of a pass', async () => {
    const { window, source, discarded } = manualWindow(4, 4);
    const start = window.start();
    for (const tile of [0, 1, 2, 3]) await source.end(tile);
    await start;
    await window.pass(async () => {
      window.resize(2 * PAGE);
      expect(window.resident).toBe(true);
      expect(atOnce(window.take([0, 1, 2, 3]))).toHaveLength(4);
    });
    expect(window.resident).toBe(false);
    expect(discarded).toHaveLength(4);
    const closing = window.close();
    for (const tile of [...source.pending.keys()]) await source.end(tile);
    await closing;
  });
});

describe('a window that streams', () => {
  it('starts when the pinned tiles are there and reading ahead has begun', async () => {
    const { window, source, pinned, streamed } = manualWindow(6, 4);
    expect([pinned.length, streamed.length]).toEqual([2, 4]);
    let started = false;
    const start = window.start().then(() => {
      started = true;
    });
    await source.end(pinned[0]!);
    expect(started).toBe(false);
    await source.end(pinned[1]!);
    await start;
    expect([...source.pending.keys()]).toEqual(streamed.slice(0, 2));
    const closing = window.close();
    for (const tile of streamed.slice(0, 2)) await source.end(tile);
    await closing;
  });

  it('waits for the first wanted tile, and counts the time', async () => {
    const { window, source } = manualWindow(5, 2);
    await window.start();
    const waiting = window.take([0, 1]);
    expect(waiting).toBeInstanceOf(Promise);
    await source.end(1);
    expect(await waiting).toEqual([{ tile: 1, offset: PAGE }]);
    expect(window.stats().waitMicroseconds).toBe(1);
    const again = window.take([0]);
    await source.end(0);
    expect(await again).toEqual([{ tile: 0, offset: 0 }]);
    window.release([0, 1]);
    expect([...source.pending.keys()]).toEqual([2, 3]);
    const closing = window.close();
    await source.end(2);
    await source.end(3);
    await closing;
  });

  it('refuses to hand a tile out twice', async () => {
    const { window, source } = manualWindow(5, 2);
    await window.start();
    await source.end(0);
    expect(atOnce(window.take([0]))).toHaveLength(1);
    expect(() => window.take([0])).toThrow(/taken and not released/);
    const closing = window.close();
    await source.end(1);
    await closing;
  });

  it('rejects the take that waits for a tile that cannot be read, and tries again at the next', async () => {
    const { window, source } = manualWindow(5, 2);
    await window.start();
    for (let i = 0; i < 3; i++) {
      const waiting = outcome(window.take([0, 1]));
      await source.end(0, new Error(`failure ${i}`));
      expect(await waiting).toMatchObject({ message: `failure ${i}` });
    }
    const last = window.take([0, 1]);
    await source.end(0);
    expect(await last).toEqual([{ tile: 0, offset: 0 }]);
    expect(window.stats().failedReads).toBe(3);
    const closing = window.close();
    await source.end(1);
    await closing;
  });

  it('starts over in the middle of a pass', async () => {
    const { window, source } = manualWindow(6, 2);
    await window.start();
    for (const tile of [0, 1, 2]) {
      const taken = window.take([tile]);
      if (taken instanceof Promise) {
        await source.end(tile);
        await taken;
      }
      window.release([tile]);
    }
    // Tiles 3 and 4 are under way; a new pass begins with tile 0.
    const waiting = window.take([0]);
    await source.end(3);
    await source.end(4);
    await source.end(0);
    expect(await waiting).toMatchObject([{ tile: 0 }]);
    const closing = window.close();
    await source.end(1);
    await closing;
  });

  it('does not wait for ever', async () => {
    let expire: (() => void) | undefined;
    const timers = {
      setTimeout: (call: () => void, milliseconds: number) => {
        expect(milliseconds).toBe(5000);
        expire = call;
        return 7;
      },
      clearTimeout: (timer: unknown) => {
        expect(timer).toBe(7);
        expire = undefined;
      },
    };
    const { window, source } = manualWindow(5, 2, { deadline: { milliseconds: 5000, timers } });
    await window.start();
    const late = outcome(window.take([0]));
    expire!();
    expect(await late).toMatchObject({ code: 'DEADLINE' });
    const taken = window.take([0]);
    await source.end(0);
    expect(await taken).toHaveLength(1);
    expect(expire).toBe(undefined);
    const closing = window.close();
    await source.end(1);
    await closing;
  });

  it('ends a wait when another take begins, and refuses to skip what is waited for', async () => {
    const { window, source } = manualWindow(5, 2);
    await window.start();
    const first = outcome(window.take([0]));
    const second = window.take([0]);
    expect(await first).toMatchObject({ code: 'INTERNAL' });
    expect(() => window.skip([0])).toThrow(/skipped while/);
    await source.end(0);
    expect(await second).toHaveLength(1);
    const closing = window.close();
    await source.end(1);
    await closing;
  });

  it('closes after the reads under way, and ends what waits', async () => {
    const { window, source } = manualWindow(5, 2);
    await window.start();
    const waiting = outcome(window.take([0]));
    let closed = false;
    const closing = window.close().then(() => {
      closed = true;
    });
    expect(await waiting).toMatchObject({ code: 'STOPPED' });
    await source.end(0);
    expect(closed).toBe(false);
    await source.end(1);
    await closing;
    await window.close();
    expect(source.pending.size).toBe(0);
    expect(await outcome(window.start())).toMatchObject({ code: 'STOPPED' });
  });
});

/** One pass as the engine does it: checks the bytes of every tile at the moment it is handed out. */
async function pass(window: Window, memory: ArrayBuffer, files: readonly TileOfFile[], half: number) {
  for (let at = 0; at < files.length; at += half) {
    let wanted = files.map((_, i) => i).slice(at, at + half);
    while (wanted.length > 0) {
      const taken = window.take(wanted);
      const placed = taken instanceof Promise ? await taken : taken;
      for (const { tile, offset } of placed) {
        const { bytes, content } = files[tile]!;
        expect(Buffer.compare(new Uint8Array(memory, offset, bytes), content), `tile ${tile}`).toBe(0);
      }
      await settled();
      window.release(placed.map(({ tile }) => tile));
      const done = new Set(placed.map(({ tile }) => tile));
      wanted = wanted.filter(tile => !done.has(tile));
    }
  }
}

describe('a window on a real file', () => {
  const sizes = Array.from({ length: 24 }, (_, i) => PAGE * (i % 5 === 0 ? 40 : 7 + i));
  const total = sizes.reduce((sum, bytes) => sum + bytes, 0);
  const least = leastWindowBytes(sizes.map((bytes, tile) => ({ tile, bytes })));

  async function openWindow(budget: number, source: (files: TileOfFile[]) => TileSource) {
    const path = `${await temporaryFolder()}/tiles.bin`;
    const files = await writeTiles(path, sizes);
    const tiles = files.map((place, tile) => ({ tile, bytes: place.bytes, place }));
    const plan = planWindow(tiles, budget);
    const memory = addon.allocate(plan.ringBytes + total);
    const opened = source(files);
    const window = new Window({
      ...{ plan, budget, memory, source: opened, readDepth: 3 },
      discard: (offset, bytes) => addon.discard(memory, offset, bytes),
      now: () => performance.now() * 1000,
    });
    onTestFinished(async () => {
      await window.close();
      await opened.close();
      addon.release(memory);
    });
    return { path, files, memory, window };
  }

  const native = (files: TileOfFile[]) =>
    createNativeTileSource(addon, { threads: 2, locate: i => files[i] });

  for (const budget of [least, Math.round((least + total) / 2 / PAGE) * PAGE, total]) {
    it(`has the right bytes pass after pass, in ${budget} of ${total} bytes`, async () => {
      const { window, memory, files } = await openWindow(budget, native);
      await window.start();
      for (const half of [1, 4, 24]) await pass(window, memory, files, half);
      const { pinnedBytes, ringBytes, streamedBytes } = window.stats();
      expect(pinnedBytes + ringBytes).toBeLessThanOrEqual(budget);
      expect(window.resident).toBe(budget === total);
      expect(streamedBytes).toBeGreaterThanOrEqual(2 * (total - pinnedBytes));
    });
  }

  it('has the right bytes while its budget goes up and down', async () => {
    const { window, memory, files } = await openWindow(least, native);
    await window.start();
    for (const part of [0.5, 1, 0.2, 0.9, 0, 1]) {
      window.resize(least + (total - least) * part);
      for (let i = 0; i < 2; i++) await window.pass(() => pass(window, memory, files, 4));
      expect(window.memoryBytes).toBeLessThanOrEqual(Math.max(least, least + (total - least) * part));
    }
  });

  it('gives a corrupt tile as an error, pass after pass, until the file is mended', async () => {
    const { window, memory, files, path } = await openWindow(least, native);
    const bad = Buffer.concat(files.map(({ content }) => content));
    bad[files[9]!.offset + 11]! ^= 16;
    await writeFile(path, bad);
    await window.start();
    for (let i = 0; i < 2; i++) {
      const reason = await outcome(pass(window, memory, files, 4));
      expect(reason).toMatchObject({ code: 'TILE_CORRUPT', message: expect.stringContaining('tile 9') });
    }
    await writeTiles(path, sizes);
    await pass(window, memory, files, 4);
  });

  /** Reads through handles whose `read` is `faulty`, given the number of the call and the true bytes read. */
  const faultySource =
    (faulty: (call: number, position: number) => 'short' | 'EIO' | 'fine') => (files: TileOfFile[]) => {
      let calls = 0;
      return createFileTileSource({
        locate: i => files[i],
        now: () => performance.now() * 1000,
        open: async path => {
          const handle = await open(path, 'r');
          return {
            read: async (buffer, offset, length, position) => {
              const fault = faulty(calls++, position);
              if (fault === 'EIO') throw Object.assign(new Error('EIO: i/o error, read'), { code: 'EIO' });
              return fault === 'short' ? { bytesRead: 0 } : handle.read(buffer, offset, length, position);
            },
            close: () => handle.close(),
          };
        },
      });
    };

  it('reads on after one short read', async () => {
    let source: TileSource | undefined;
    const { window, memory, files } = await openWindow(least, given => {
      source = faultySource(call => (call === 5 ? 'short' : 'fine'))(given);
      return source;
    });
    await window.start();
    await pass(window, memory, files, 4);
    expect(window.stats().failedReads).toBe(0);
    expect(source!.stats().retries).toBe(1);
  });

  it('gives an error for every take of a tile that the disk lost', async () => {
    const lost = sizes.slice(0, 13).reduce((sum, bytes) => sum + bytes, 0);
    const { window, memory, files } = await openWindow(
      least,
      faultySource((_, position) => (position === lost ? 'EIO' : 'fine')),
    );
    await window.start();
    for (let i = 0; i < 3; i++) {
      const reason = await outcome(pass(window, memory, files, 4));
      expect(reason).toMatchObject({ code: 'DISK_READ', message: expect.stringMatching(/tile 13 .*EIO/) });
    }
  });
});
