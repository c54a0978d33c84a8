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
const open = (folder: string, fileSystem: FileSystem = fs) => TileCache.open({ fileSystem, folder, crc32c });

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
  await Promise.all(tiles.map(({ hash, bytes }) => cache.put(hash, bytes)));
  await cache.put(tiles[0]!.hash, tiles[0]!.bytes);
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
  await expect(cache.put(tile(1).hash, tile(2).bytes)).rejects.toMatchObject({ code: 'TILE_CORRUPT' });
  const odd = new Uint8Array(100);
  await expect(cache.put(createHash('sha256').update(odd).digest('hex'), odd)).rejects.toMatchObject({
    code: 'TILE_CORRUPT',
  });
  expect(cache.hashes()).toEqual([]);
  await cache.close();
});

test('removed tiles make room for others', async () => {
  const folder = await temporaryFolder();
  const cache = await open(folder);
  const [a, b, c] = [tile(1, 2), tile(2), tile(3, 2)];
  await cache.put(a.hash, a.bytes);
  await cache.put(b.hash, b.bytes);
  await cache.remove([a.hash, 'f'.repeat(64)]);
  expect(cache.has(a.hash)).toBe(false);
  await cache.put(c.hash, c.bytes);
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
  await cache.put(a.hash, a.bytes);
  await cache.put(b.hash, b.bytes);
  await cache.close();
  const index = join(folder, 'index.txt');
  await fs.truncate(index, (await fs.stat(index)).size - 3);
  const after = await open(folder);
  expect(after.hashes()).toEqual([a.hash]);
  await after.put(c.hash, c.bytes);
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
  await cache.put(a.hash, a.bytes);
  await cache.close();
  await fs.rm(join(folder, name));
  const again = await open(folder);
  expect(again.hashes()).toEqual([]);
  await again.put(a.hash, a.bytes);
  await readBack(again, a.hash);
  await again.close();
});

test('a data file that was cut loses the tiles behind the cut', async () => {
  const folder = await temporaryFolder();
  const [a, b] = [tile(1), tile(2)];
  const cache = await open(folder);
  await cache.put(a.hash, a.bytes);
  await cache.put(b.hash, b.bytes);
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
  await cache.put(a.hash, a.bytes);
  await cache.put(b.hash, b.bytes);
  await cache.close();
  await fs.appendFile(join(folder, 'index.txt'), `- ${'0'.repeat(64)}\n`.repeat(2000));
  const again = await open(folder);
  expect(again.hashes()).toEqual([a.hash, b.hash]);
  await again.close();
  expect((await fs.stat(join(folder, 'index.txt'))).size).toBeLessThan(300);
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
        truncate: bytes => file.truncate(bytes),
        sync: () => file.sync(),
        stat: () => file.stat(),
        close: () => file.close(),
      };
      return open;
    },
  };
}

const noSpace = () => Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });

test('data is synced before its line, and a line before its slot is used again', async () => {
  const folder = await temporaryFolder();
  const calls: string[] = [];
  const cache = await open(
    folder,
    faulty((call, path) => calls.push(`${call} ${path.slice(folder.length + 1)}`)),
  );
  const [a, b] = [tile(1), tile(2)];
  const put = ['write tiles.bin', 'datasync tiles.bin', 'write index.txt', 'datasync index.txt'];
  await cache.put(a.hash, a.bytes);
  await Promise.all([cache.remove([a.hash]), cache.put(b.hash, b.bytes)]);
  expect(calls).toEqual([...put, 'write index.txt', 'datasync index.txt', ...put]);
  await cache.close();
});

test.each(['write tiles.bin', 'datasync tiles.bin', 'write index.txt', 'datasync index.txt'])(
  'a disk that fails at "%s" is DISK_WRITE, and the cache goes on',
  async broken => {
    const folder = await temporaryFolder();
    const [a, b] = [tile(1), tile(2)];
    let failing = false;
    const cache = await open(
      folder,
      faulty((call, path) => {
        if (failing && `${call} ${path.slice(folder.length + 1)}` === broken) throw noSpace();
      }),
    );
    await cache.put(a.hash, a.bytes);
    failing = true;
    await expect(cache.put(b.hash, b.bytes)).rejects.toMatchObject({
      code: 'DISK_WRITE',
      message: expect.stringContaining(broken.split(' ')[1]!),
    });
    expect(cache.has(b.hash)).toBe(false);
    failing = false;
    await cache.put(b.hash, b.bytes);
    await readBack(cache, b.hash);
    await cache.close();
    const again = await open(folder);
    expect(again.hashes()).toEqual([a.hash, b.hash]);
    await readBack(again, a.hash);
    await readBack(again, b.hash);
    await again.close();
  },
);

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
    for (const { hash, bytes } of tiles) await cache.put(hash, bytes).catch(() => undefined);
    await cache.remove([tiles[0]!.hash]).catch(() => undefined);
    await cache.close();
    const again = await open(folder);
    for (const hash of again.hashes()) await readBack(again, hash);
    await again.close();
  }
});

test('a closed cache takes nothing more', async () => {
  const cache = await open(await temporaryFolder());
  await cache.close();
  await cache.close();
  const { hash, bytes } = tile(1);
  await expect(cache.put(hash, bytes)).rejects.toMatchObject({ code: 'STOPPED' });
});
