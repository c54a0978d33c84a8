import { rm, truncate, writeFile } from 'node:fs/promises';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { DiskAddon } from '../../src/disk-io/disk-addon.ts';
import { createNativeTileSource } from '../../src/disk-io/native-tile-source.ts';
import { addon } from '../kernels/addon-under-test.ts';
import { type TileOfFile, temporaryFolder, writeTiles } from './tile-files.ts';

function allocate(bytes: number): ArrayBuffer {
  const memory = addon.allocate(bytes);
  onTestFinished(() => addon.release(memory));
  return memory;
}

function openSource(tiles: readonly TileOfFile[], disk: DiskAddon = addon) {
  const source = createNativeTileSource(disk, { threads: 2, locate: tile => tiles[tile] });
  onTestFinished(() => source.close());
  return source;
}

describe('native tile source', () => {
  it('reads tiles of many files into place', async () => {
    const folder = await temporaryFolder();
    const tiles: TileOfFile[] = [];
    for (let i = 0; i < 40; i++) tiles.push(...(await writeTiles(`${folder}/${i}.bin`, [8192, 4096])));
    const memory = allocate(80 * 8192);
    const source = openSource(tiles);
    await Promise.all(tiles.map((_, i) => source.read([i], memory, i * 8192)));
    for (const [i, { bytes, content }] of tiles.entries()) {
      expect(Buffer.compare(new Uint8Array(memory, i * 8192, bytes), content), `tile ${i}`).toBe(0);
    }
    expect(source.stats()).toMatchObject({ reads: 80, bytes: 40 * 12_288, retries: 0 });
    expect(source.stats().microseconds).toBeGreaterThan(0);
    expect(source.how).toBe(addon.openFile(`${folder}/0.bin`, true).how);
  });

  it('keeps a bounded number of files open', async () => {
    const folder = await temporaryFolder();
    const tiles: TileOfFile[] = [];
    for (let i = 0; i < 40; i++) tiles.push(...(await writeTiles(`${folder}/${i}.bin`, [4096])));
    let open = 0;
    let most = 0;
    const disk: DiskAddon = {
      ...addon,
      openFile: (path, direct) => {
        most = Math.max(most, ++open);
        return addon.openFile(path, direct);
      },
      closeFile: file => {
        open--;
        addon.closeFile(file);
      },
    };
    const source = openSource(tiles, disk);
    const memory = allocate(4096);
    for (const i of tiles.keys()) await source.read([i], memory, 0);
    expect(most).toBeLessThanOrEqual(33);
    await source.close();
    expect(open).toBe(0);
  });

  it('names file and tile where bytes are wrong, after a second try', async () => {
    const path = `${await temporaryFolder()}/tiles.bin`;
    const tiles = await writeTiles(path, [4096, 8192]);
    const bad = Buffer.concat(tiles.map(tile => tile.content));
    bad[5000]! ^= 1;
    await writeFile(path, bad);
    const source = openSource(tiles);
    const memory = allocate(8192);
    const reading = source.read([1], memory, 0);
    await expect(reading).rejects.toMatchObject({ code: 'TILE_CORRUPT' });
    await expect(reading).rejects.toThrow(`tile 1 (8192 bytes at 4096 of ${path})`);
    expect(source.stats()).toMatchObject({ reads: 0, retries: 1 });
    await source.read([0], memory, 0);
    expect(source.stats()).toMatchObject({ reads: 1, retries: 1 });
  });

  it('says when a file ends early, and reads it once it is whole', async () => {
    const path = `${await temporaryFolder()}/tiles.bin`;
    const tiles = await writeTiles(path, [4096, 8192]);
    await truncate(path, 4096 + 512);
    const source = openSource(tiles);
    const memory = allocate(8192);
    const reading = source.read([1], memory, 0);
    await expect(reading).rejects.toMatchObject({ code: 'DISK_READ' });
    await expect(reading).rejects.toThrow(/tile 1 .*tiles\.bin.* ends after 512 bytes/);
    await writeTiles(path, [4096, 8192]);
    await source.read([1], memory, 0);
    expect(Buffer.compare(new Uint8Array(memory), tiles[1]!.content)).toBe(0);
  });

  it('says when a file is not there', async () => {
    const path = `${await temporaryFolder()}/tiles.bin`;
    const tiles = await writeTiles(path, [4096]);
    await rm(path);
    const reading = openSource(tiles).read([0], allocate(4096), 0);
    await expect(reading).rejects.toMatchObject({ code: 'DISK_READ' });
    await expect(reading).rejects.toThrow(/tile 0 .*tiles\.bin.*ENOENT/);
  });

  it('does not look for tiles that it does not know', async () => {
    const source = openSource([]);
    await expect(source.read([7], allocate(4096), 0)).rejects.toThrow(/Tile 7 is not on this device/);
    expect(source.stats().retries).toBe(0);
  });

  it('recovers from one bad read by itself, with the file opened anew', async () => {
    const path = `${await temporaryFolder()}/tiles.bin`;
    const tiles = await writeTiles(path, [4096]);
    let calls = 0;
    let opens = 0;
    const disk: DiskAddon = {
      ...addon,
      openFile: (...args) => {
        opens++;
        return addon.openFile(...args);
      },
      readRun: (...args) => {
        if (calls++ > 0) return addon.readRun(...args);
        queueMicrotask(() =>
          args[6]({ kind: 'errno', part: 0, errno: 5, message: 'Input/output error' }, 1, 1),
        );
      },
    };
    const source = openSource(tiles, disk);
    const memory = allocate(4096);
    await source.read([0], memory, 0);
    expect(Buffer.compare(new Uint8Array(memory), tiles[0]!.content)).toBe(0);
    expect(source.stats()).toMatchObject({ reads: 1, retries: 1 });
    expect(opens).toBe(2);
  });

  it('reads neighbours at once, and tiles that are not one by one', async () => {
    const folder = await temporaryFolder();
    const tiles = [
      ...(await writeTiles(`${folder}/a.bin`, [4096, 8192, 4096])),
      ...(await writeTiles(`${folder}/b.bin`, [4096])),
    ];
    let calls = 0;
    const disk: DiskAddon = {
      ...addon,
      readRun: (...args) => {
        calls++;
        addon.readRun(...args);
      },
    };
    const source = openSource(tiles, disk);
    const memory = allocate(5 * 4096);
    await source.read([0, 1, 2, 3], memory, 0);
    const whole = Buffer.concat(tiles.map(({ content }) => content));
    expect(Buffer.compare(new Uint8Array(memory), whole)).toBe(0);
    expect(calls).toBe(2);
    await source.read([3, 2, 0, 1], memory, 0);
    expect(calls).toBe(5);
    const turned = Buffer.concat([3, 2, 0, 1].map(i => tiles[i]!.content));
    expect(Buffer.compare(new Uint8Array(memory), turned)).toBe(0);
  });

  it('gets a tile anew where its bytes are lost, and only that one', async () => {
    const folder = await temporaryFolder();
    const tiles = await writeTiles(`${folder}/tiles.bin`, [4096, 8192, 4096]);
    const whole = Buffer.concat(tiles.map(({ content }) => content));
    const bad = Buffer.from(whole);
    bad[9000]! ^= 1;
    await writeFile(`${folder}/tiles.bin`, bad);
    const asked: number[] = [];
    const source = createNativeTileSource(addon, {
      locate: tile => tiles[tile],
      recover: async (tile, reason) => {
        asked.push(tile);
        expect(reason).toMatchObject({ code: 'TILE_CORRUPT' });
        await writeFile(`${folder}/fetched.bin`, tiles[tile]!.content);
        tiles[tile] = { ...tiles[tile]!, path: `${folder}/fetched.bin`, offset: 0 };
      },
    });
    onTestFinished(() => source.close());
    const memory = allocate(16_384);
    await source.read([0, 1, 2], memory, 0);
    expect(Buffer.compare(new Uint8Array(memory), whole)).toBe(0);
    expect(asked).toEqual([1]);
    expect(source.stats()).toMatchObject({ retries: 1, recovered: 1 });
  });

  it('has every tile of a run fetched where all of them are bad', async () => {
    const folder = await temporaryFolder();
    const tiles = await writeTiles(`${folder}/tiles.bin`, Array(6).fill(4096));
    const whole = Buffer.concat(tiles.map(({ content }) => content));
    await writeFile(`${folder}/tiles.bin`, Buffer.alloc(whole.length));
    const source = createNativeTileSource(addon, {
      locate: tile => tiles[tile],
      recover: async tile => {
        const path = `${folder}/fetched-${tile}.bin`;
        await writeFile(path, tiles[tile]!.content);
        tiles[tile] = { ...tiles[tile]!, path, offset: 0 };
      },
    });
    onTestFinished(() => source.close());
    const memory = allocate(whole.length);
    await source.read([0, 1, 2, 3, 4, 5], memory, 0);
    expect(Buffer.compare(new Uint8Array(memory), whole)).toBe(0);
    expect(source.stats()).toMatchObject({ recovered: 6 });
  });

  it('says both what is wrong and why it could not be fetched, and does not try for ever', async () => {
    const path = `${await temporaryFolder()}/tiles.bin`;
    const tiles = await writeTiles(path, [4096]);
    await writeFile(path, Buffer.alloc(4096));
    let asked = 0;
    const open = (recover: () => Promise<void>) => {
      const source = createNativeTileSource(addon, { locate: tile => tiles[tile], recover });
      onTestFinished(() => source.close());
      return source;
    };
    const memory = allocate(4096);
    const refused = open(() => Promise.reject(new Error('nobody has it'))).read([0], memory, 0);
    await expect(refused).rejects.toMatchObject({ code: 'TILE_CORRUPT' });
    await expect(refused).rejects.toThrow(/CRC-32C.*could not be fetched: nobody has it/);
    const useless = open(async () => {
      asked++;
    });
    await expect(useless.read([0], memory, 0)).rejects.toMatchObject({ code: 'TILE_CORRUPT' });
    expect(asked).toBe(2);
  });

  it('closes after the reads under way, and then says so', async () => {
    const path = `${await temporaryFolder()}/tiles.bin`;
    const tiles = await writeTiles(path, [4 << 20]);
    const source = openSource(tiles);
    const memory = allocate(4 << 20);
    let read = false;
    const reading = source.read([0], memory, 0).then(() => {
      read = true;
    });
    await source.close();
    await reading;
    expect(read).toBe(true);
    await source.close();
    await expect(source.read([0], memory, 0)).rejects.toMatchObject({ code: 'STOPPED' });
  });
});
