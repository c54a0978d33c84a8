import { open, rm, truncate, writeFile } from 'node:fs/promises';
import { describe, expect, it, onTestFinished } from 'vitest';
import { createFileTileSource, type FileTileSourceOptions } from '../../src/disk-io/file-tile-source.ts';
import { type TileOfFile, temporaryFolder, writeTiles } from './tile-files.ts';

function openSource(tiles: readonly TileOfFile[], options: Partial<FileTileSourceOptions> = {}) {
  let time = 0;
  const source = createFileTileSource({
    locate: tile => tiles[tile],
    open: path => open(path, 'r'),
    now: () => time++,
    ...options,
  });
  onTestFinished(() => source.close());
  return source;
}

describe('file tile source', () => {
  it('reads tiles of many files into place, few of them open', async () => {
    const folder = await temporaryFolder();
    const tiles: TileOfFile[] = [];
    for (let i = 0; i < 40; i++) tiles.push(...(await writeTiles(`${folder}/${i}.bin`, [8192, 4096])));
    let openFiles = 0;
    let most = 0;
    const source = openSource(tiles, {
      open: async path => {
        most = Math.max(most, ++openFiles);
        const handle = await open(path, 'r');
        return {
          read: (...args) => handle.read(...args),
          close: async () => {
            openFiles--;
            await handle.close();
          },
        };
      },
    });
    const memory = new ArrayBuffer(80 * 8192);
    for (let i = 0; i < 80; i += 2) {
      await Promise.all([source.read([i], memory, i * 8192), source.read([i + 1], memory, (i + 1) * 8192)]);
    }
    for (const [i, { bytes, content }] of tiles.entries()) {
      expect(Buffer.compare(new Uint8Array(memory, i * 8192, bytes), content), `tile ${i}`).toBe(0);
    }
    expect(source.stats()).toMatchObject({ reads: 80, bytes: 40 * 12_288, retries: 0 });
    expect(source.stats().microseconds).toBeGreaterThan(0);
    expect(most).toBeLessThanOrEqual(33);
    await source.close();
    expect(openFiles).toBe(0);
  });

  it('closes a file only after its last read', async () => {
    const folder = await temporaryFolder();
    const tiles: TileOfFile[] = [];
    for (let i = 0; i < 60; i++) tiles.push(...(await writeTiles(`${folder}/${i}.bin`, [4096])));
    let early = 0;
    const source = openSource(tiles, {
      open: async path => {
        const handle = await open(path, 'r');
        let reading = 0;
        return {
          read: async (...args) => {
            reading++;
            const result = await handle.read(...args);
            reading--;
            return result;
          },
          close: () => {
            if (reading > 0) early++;
            return handle.close();
          },
        };
      },
    });
    const memory = new ArrayBuffer(60 * 4096);
    await Promise.all(tiles.map((_, i) => source.read([i], memory, i * 4096)));
    expect(source.stats()).toMatchObject({ reads: 60, retries: 0 });
    expect(early).toBe(0);
  });

  it('names file and tile: wrong bytes, an early end, no file, an unknown tile', async () => {
    const path = `${await temporaryFolder()}/tiles.bin`;
    const tiles = await writeTiles(path, [4096, 8192]);
    const source = openSource(tiles);
    const memory = new ArrayBuffer(8192);
    const bad = Buffer.concat(tiles.map(tile => tile.content));
    bad[5000]! ^= 1;
    await writeFile(path, bad);
    const corrupt = source.read([1], memory, 0);
    await expect(corrupt).rejects.toMatchObject({ code: 'TILE_CORRUPT' });
    await expect(corrupt).rejects.toThrow(`tile 1 (8192 bytes at 4096 of ${path})`);
    await truncate(path, 4196);
    const short = source.read([1], memory, 0);
    await expect(short).rejects.toMatchObject({ code: 'DISK_READ' });
    await expect(short).rejects.toThrow(/ends after 100 bytes/);
    await rm(path);
    await expect(source.read([1], memory, 0)).rejects.toThrow(/ENOENT/);
    await expect(source.read([9], memory, 0)).rejects.toThrow(/Tile 9 is not on this device/);
    expect(source.stats()).toMatchObject({ reads: 0, retries: 3 });
  });

  it('goes on after a read that gave less than asked', async () => {
    const path = `${await temporaryFolder()}/tiles.bin`;
    const tiles = await writeTiles(path, [8192]);
    const source = openSource(tiles, {
      open: async name => {
        const handle = await open(name, 'r');
        return {
          read: (buffer, offset, length, position) =>
            handle.read(buffer, offset, Math.min(length, 1000), position),
          close: () => handle.close(),
        };
      },
    });
    const memory = new ArrayBuffer(8192);
    await source.read([0], memory, 0);
    expect(Buffer.compare(new Uint8Array(memory), tiles[0]!.content)).toBe(0);
    await source.close();
    await expect(source.read([0], memory, 0)).rejects.toMatchObject({ code: 'STOPPED' });
  });
});
