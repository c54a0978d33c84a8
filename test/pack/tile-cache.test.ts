import { createHash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { FileSystem, OpenFile } from '../../src/pack/file-system.ts';
import { TileCache } from '../../src/pack/tile-cache.ts';
import { crc32c } from './crc32c-table.ts';
import { fillTile } from './small-pack.ts';
import { temporaryFolder } from './temporary-folder.ts';

const tile = (seed: number, pages = 1) => {
  const bytes = fillTile(4096 * pages, seed);
  return { bytes, hash: createHash('sha256').update(bytes).digest('hex') };
};
const open = (folder: string, fileSystem: FileSystem = fs, now = () => 0) =>
  TileCache.open({ fileSystem, folder, crc32c, now });
type Tile = ReturnType<typeof tile>;

async function put(cache: TileCache, ...tiles: Tile[]): Promise<void> {
  for (const { hash, bytes } of tiles) await cache.write(hash, bytes);
  await cache.confirm(tiles.map(({ hash }) => hash));
}

async function readBack(cache: TileCache, hash: string): Promise<Uint8Array> {
  const { path, offset, bytes, crc32c: crc } = cache.locate(hash)!;
  const found = (await fs.readFile(path)).subarray(offset, offset + bytes);
  expect(crc32c(found)).toBe(crc);
  expect(offset % 4096).toBe(0);
  expect(createHash('sha256').update(found).digest('hex')).toBe(hash);
  return found;
}

test('tiles that were put are there, also after it was opened again', async () => {
  const folder = join(await temporaryFolder(), 'cache');
  const tiles = [tile(1), tile(2, 3), tile(3)];
  const cache = await open(folder);
  await Promise.all(tiles.map(({ hash, bytes }) => cache.write(hash, bytes)));
  await put(cache, tiles[0]!);
  expect(cache.bytes).toBe(5 * 4096);
  await cache.close();
  const again = await open(folder);
  expect(again.hashes()).toEqual(tiles.map(({ hash }) => hash));
  for (const { hash } of tiles) await readBack(again, hash);
  expect(again.has('0'.repeat(64))).toBe(false);
  expect(again.locate('0'.repeat(64))).toBeUndefined();
  await again.close();
});

test('bytes that do not have the hash, or no whole pages, are refused', async () => {
  const cache = await open(await temporaryFolder());
  await expect(cache.write(tile(1).hash, tile(2).bytes)).rejects.toMatchObject({ code: 'TILE_CORRUPT' });
  const odd = new Uint8Array(100);
  await expect(cache.write(createHash('sha256').update(odd).digest('hex'), odd)).rejects.toMatchObject({
    code: 'TILE_CORRUPT',
  });
  expect(cache.hashes()).toEqual([]);
  await cache.close();
});

test('removed tiles make room for others', async () => {
  const folder = await temporaryFolder();
  const cache = await open(folder);
  const [a, b, c] = [tile(1, 2), tile(2), tile(3, 2)];
  await put(cache, a, b);
  await cache.remove([a.hash, 'f'.repeat(64)]);
  expect(cache.has(a.hash)).toBe(false);
  await put(cache, c);
  expect(cache.locate(c.hash)!.offset).toBe(0);
  await cache.close();
  expect((await fs.stat(join(folder, 'tiles.bin'))).size).toBe(3 * 4096);
  const again = await open(folder);
  expect(again.hashes()).toEqual([b.hash, c.hash]);
  await readBack(again, b.hash);
  await readBack(again, c.hash);
  await again.close();
});

test('a line torn by a crash loses that tile only, and further tiles can be put', async () => {
  const folder = await temporaryFolder();
  const [a, b, c] = [tile(1), tile(2), tile(3)];
  const cache = await open(folder);
  await put(cache, a, b);
  await cache.close();
  const index = join(folder, 'index.txt');
  await fs.truncate(index, (await fs.stat(index)).size - 3);
  const after = await open(folder);
  expect(after.hashes()).toEqual([a.hash]);
  await put(after, c);
  await after.close();
  const again = await open(folder);
  expect(again.hashes()).toEqual([a.hash, c.hash]);
  await readBack(again, a.hash);
  await readBack(again, c.hash);
  await again.close();
});

test.each([['tiles.bin'], ['index.txt']])('without %s it is empty and works', async name => {
  const folder = await temporaryFolder();
  const a = tile(1);
  const cache = await open(folder);
  await put(cache, a);
  await cache.close();
  await fs.rm(join(folder, name));
  const again = await open(folder);
  expect(again.hashes()).toEqual([]);
  await put(again, a);
  await readBack(again, a.hash);
  await again.close();
});

test('a data file that was cut loses the tiles behind the cut', async () => {
  const folder = await temporaryFolder();
  const [a, b] = [tile(1), tile(2)];
  const cache = await open(folder);
  await put(cache, a, b);
  await cache.close();
  await fs.truncate(join(folder, 'tiles.bin'), 5000);
  const again = await open(folder);
  expect(again.hashes()).toEqual([a.hash]);
  await again.close();
});

test('many removed tiles do not make the journal long for ever', async () => {
  const folder = await temporaryFolder();
  const [a, b] = [tile(1), tile(2)];
  const cache = await open(folder);
  await put(cache, a, b);
  await cache.close();
  await fs.appendFile(join(folder, 'index.txt'), `- ${'0'.repeat(64)}\n`.repeat(2000));
  const again = await open(folder);
  expect(again.hashes()).toEqual([a.hash, b.hash]);
  await again.close();
  expect((await fs.stat(join(folder, 'index.txt'))).size).toBeLessThan(300);
});

test('a journal is shortened while the cache is open, and nothing is lost where that fails', async () => {
  const folder = await temporaryFolder();
  const journal = join(folder, 'index.txt');
  const [kept, a, b] = [tile(1), tile(2), tile(3)];
  let failing = true;
  const rename: FileSystem['rename'] = async (from, to) => {
    if (failing) throw noSpace();
    await fs.rename(from, to);
  };
  await fs.writeFile(journal, `- ${'0'.repeat(64)}\n`.repeat(1500)); // not yet so long that it is shortened
  const cache = await open(folder, { ...faulty(() => undefined), rename });
  await put(cache, kept);
  const change = async () => {
    for (let i = 0; i < 40; i++) {
      await put(cache, a);
      await cache.remove([a.hash]);
    }
  };
  await expect(change()).rejects.toMatchObject({ code: 'DISK_WRITE' });
  expect(cache.hashes()).toEqual([kept.hash]);
  expect((await fs.stat(journal)).size).toBeGreaterThan(100_000);
  failing = false;
  await put(cache, a, b);
  await cache.remove([a.hash]);
  expect((await fs.stat(journal)).size).toBeLessThan(1000);
  await cache.close();
  const again = await open(folder);
  expect(again.hashes()).toEqual([kept.hash, b.hash]);
  for (const { hash } of [kept, b]) await readBack(again, hash);
  await again.close();
});

/** A file system that does what `fault` says before each call of an open file; `fault` throws to fail the call. */
function faulty(fault: (call: string, path: string) => void): FileSystem {
  return {
    ...fs,
    open: async (path, flags) => {
      const file = await fs.open(path, flags);
      const wrap =
        <A extends unknown[], R>(call: string, run: (...args: A) => Promise<R>) =>
        async (...args: A): Promise<R> => {
          fault(call, path);
          return run(...args);
        };
      const open: OpenFile = {
        read: (buffer, offset, length, position) => file.read(buffer, offset, length, position),
        write: wrap('write', (buffer: Uint8Array, offset: number, length: number, position: number) =>
          file.write(buffer, offset, length, position),
        ),
        datasync: wrap('datasync', () => file.datasync()),
        truncate: wrap('truncate', (bytes: number) => file.truncate(bytes)),
        sync: () => file.sync(),
        stat: () => file.stat(),
        close: () => file.close(),
      };
      return open;
    },
  };
}

const noSpace = () => Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });

test('data is synced before its line, and a line before its slot is used again; a group costs as many syncs as one tile', async () => {
  const folder = await temporaryFolder();
  const calls: string[] = [];
  const cache = await open(
    folder,
    faulty((call, path) => calls.push(`${call} ${path.slice(folder.length + 1)}`)),
  );
  const [a, b, c] = [tile(1), tile(2), tile(3)];
  const kept = ['datasync tiles.bin', 'write index.txt', 'datasync index.txt'];
  await put(cache, a, b);
  await Promise.all([cache.remove([a.hash]), put(cache, c)]);
  expect(calls).toEqual([
    ...['write tiles.bin', 'write tiles.bin', ...kept],
    ...['write index.txt', 'datasync index.txt', 'write tiles.bin', ...kept],
  ]);
  await cache.confirm([]);
  expect(calls).toHaveLength(11);
  await cache.close();
});

test('a tile is there once it was confirmed, not before', async () => {
  const folder = await temporaryFolder();
  const [a, b, c] = [tile(1), tile(2), tile(3)];
  const cache = await open(folder);
  await put(cache, a);
  await cache.write(b.hash, b.bytes);
  await cache.write(c.hash, c.bytes);
  expect([cache.has(b.hash), cache.hashes()]).toEqual([false, [a.hash]]);
  expect(cache.bytes).toBe(3 * 4096);
  await cache.remove([b.hash]);
  await cache.confirm([]);
  expect(cache.hashes()).toEqual([a.hash, c.hash]);
  await cache.write(b.hash, b.bytes);
  await cache.close();
  const again = await open(folder);
  expect(again.hashes()).toEqual([a.hash, c.hash]);
  await again.close();
});

test('many bytes, and tiles that have waited, are confirmed without being asked', async () => {
  let now = 0;
  const cache = await open(await temporaryFolder(), fs, () => now);
  const large = Array.from({ length: 5 }, (_, i) => tile(i, 1024));
  for (const { hash, bytes } of large) await cache.write(hash, bytes);
  expect(cache.hashes()).toEqual(large.slice(0, 4).map(({ hash }) => hash));
  now = 1000;
  const late = tile(9);
  await cache.write(late.hash, late.bytes);
  expect(cache.has(large[4]!.hash) && cache.has(late.hash)).toBe(true);
  await cache.close();
});

test.each(['write tiles.bin', 'datasync tiles.bin', 'write index.txt', 'datasync index.txt'])(
  'a disk that fails at "%s" is DISK_WRITE, and the cache goes on',
  async broken => {
    const folder = await temporaryFolder();
    const [a, b, c] = [tile(1), tile(2), tile(3)];
    let failing = false;
    const cache = await open(
      folder,
      faulty((call, path) => {
        if (failing && `${call} ${path.slice(folder.length + 1)}` === broken) throw noSpace();
      }),
    );
    await put(cache, a);
    failing = true;
    await expect(put(cache, b, c)).rejects.toMatchObject({
      code: 'DISK_WRITE',
      message: expect.stringContaining(broken.split(' ')[1]!),
    });
    expect(cache.hashes()).toEqual([a.hash]);
    expect(cache.bytes).toBe(4096);
    failing = false;
    // what the failed group left of its lines must not count again
    await put(cache, b);
    await readBack(cache, b.hash);
    await cache.close();
    const again = await open(folder);
    expect(again.hashes()).toEqual([a.hash, b.hash]);
    await readBack(again, a.hash);
    await readBack(again, b.hash);
    await again.close();
  },
);

test('tiles of a group that failed under another call are not confirmed', async () => {
  let failing = false;
  const fileSystem = faulty(call => {
    if (failing && call === 'datasync') throw noSpace();
  });
  const cache = await open(await temporaryFolder(), fileSystem);
  const [a, b] = [tile(1), tile(2)];
  await cache.write(a.hash, a.bytes);
  failing = true;
  await expect(put(cache, b)).rejects.toMatchObject({ code: 'DISK_WRITE' });
  failing = false;
  await expect(cache.confirm([a.hash])).rejects.toMatchObject({ code: 'DISK_WRITE' });
  await put(cache, a);
  expect(cache.hashes()).toEqual([a.hash]);
  await cache.close();
});

test('a data file that is removed while tiles wait to be confirmed is an error, and the cache goes on', async () => {
  const folder = await temporaryFolder();
  const [a, b] = [tile(1), tile(2)];
  const cache = await open(folder);
  await cache.write(a.hash, a.bytes);
  await fs.rm(join(folder, 'tiles.bin'));
  await expect(cache.confirm([])).rejects.toMatchObject({ code: 'DISK_WRITE' });
  await cache.confirm([]);
  await put(cache, b);
  expect(cache.hashes()).toEqual([b.hash]);
  await readBack(cache, b.hash);
  await cache.close();
});

test('a crash at any call leaves whole tiles only', async () => {
  const tiles = [tile(1), tile(2, 2), tile(3)];
  for (let crashAt = 0; crashAt < 16; crashAt++) {
    const folder = await temporaryFolder();
    let calls = 0;
    const cache = await open(
      folder,
      faulty(() => {
        if (calls++ >= crashAt) throw new Error('crashed');
      }),
    );
    await put(cache, tiles[0]!, tiles[1]!).catch(() => undefined);
    await cache.remove([tiles[0]!.hash]).catch(() => undefined);
    await put(cache, tiles[2]!).catch(() => undefined);
    await cache.close();
    const again = await open(folder);
    for (const hash of again.hashes()) await readBack(again, hash);
    await again.close();
  }
});

/** A disk that loses, when the power is cut, any of the writes since the last sync of their file. */
class CutDisk {
  readonly fileSystem: FileSystem;
  #calls = 0;
  readonly #undo = new Map<string, (() => Promise<void>)[]>();

  /** `syncFails`: a sync that fails at this call, and whose writes are lost then. */
  constructor(cutAt: number, failAt: number) {
    const count = () => {
      if (++this.#calls === failAt) throw new Error('EIO');
      if (this.#calls >= cutAt) throw new Error('no power');
    };
    this.fileSystem = {
      ...fs,
      open: async (path, flags) => {
        const file = await fs.open(path, flags);
        const undo = this.#undo.get(path) ?? [];
        this.#undo.set(path, undo);
        return {
          read: (buffer, offset, length, position) => file.read(buffer, offset, length, position),
          write: async (buffer, offset, length, position) => {
            count();
            const before = new Uint8Array(length);
            const { size } = await file.stat();
            await file.read(before, 0, length, position);
            undo.push(async () => {
              await fs.writeFile(path, splice(await fs.readFile(path), before, position, size));
            });
            return file.write(buffer, offset, length, position);
          },
          datasync: async () => {
            count();
            undo.length = 0;
            return file.datasync();
          },
          truncate: async bytes => {
            count();
            await file.truncate(bytes);
          },
          sync: () => file.sync(),
          stat: () => file.stat(),
          close: () => file.close(),
        };
      },
    };
  }

  /** Loses every write for which `lose` says so, the last first. */
  async cut(lose: () => boolean): Promise<void> {
    for (const undo of this.#undo.values())
      for (const one of undo.splice(0).reverse()) if (lose()) await one();
  }
}

/** `file` with `before` put back at `position`; of `size` bytes where nothing lies behind. */
function splice(file: Uint8Array, before: Uint8Array, position: number, size: number): Uint8Array {
  const copy = new Uint8Array(file);
  copy.set(before.subarray(0, copy.length - position), position);
  return position + before.length >= copy.length ? copy.subarray(0, Math.max(size, position)) : copy;
}

test('a power cut at any call loses no tile that was confirmed, and leaves none that is not whole', async () => {
  const [a, b, c, d, e] = [tile(1), tile(2, 2), tile(3), tile(4, 2), tile(5)];
  for (let cutAt = 1; cutAt < 24; cutAt++)
    for (const [failAt, lost] of [
      [0, () => true],
      [0, () => cutAt % 2 === 0],
      [4, () => true],
      [5, () => cutAt % 3 === 0],
    ] as const) {
      const folder = await temporaryFolder();
      const disk = new CutDisk(cutAt, failAt);
      const cache = await open(folder, disk.fileSystem);
      const sure = new Set<string>();
      const group = async (...tiles: Tile[]) => {
        try {
          await put(cache, ...tiles);
          for (const { hash } of tiles) sure.add(hash);
        } catch (error) {
          expect(error).toMatchObject({ code: 'DISK_WRITE' });
        }
      };
      await group(a, b);
      sure.delete(a.hash);
      await cache.remove([a.hash]).catch(() => undefined);
      await group(c, d);
      await group(e);
      await cache.close();
      await disk.cut(lost);
      const again = await open(folder);
      for (const hash of sure) expect(again.has(hash)).toBe(true);
      for (const hash of again.hashes()) await readBack(again, hash);
      await again.close();
    }
});

test('a closed cache takes nothing more', async () => {
  const cache = await open(await temporaryFolder());
  await cache.close();
  await cache.close();
  const { hash, bytes } = tile(1);
  await expect(cache.write(hash, bytes)).rejects.toMatchObject({ code: 'STOPPED' });
});
