import { execFile } from 'node:child_process';
import { constants } from 'node:fs';
import { open, truncate, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { DiskFile, DiskReader, TileReadError } from '../../src/disk-io/disk-addon.ts';
import { addon } from '../kernels/addon-under-test.ts';
import { patternBytes, type TileOfFile, temporaryFolder, writeTiles } from './tile-files.ts';

const MIB = 1 << 20;
const ADDON = fileURLToPath(new URL('../../build/potluck.node', import.meta.url));

function openReader(threads: number): DiskReader {
  const reader = addon.createReader(threads);
  onTestFinished(() => addon.closeReader(reader));
  return reader;
}

function allocate(bytes: number): ArrayBuffer {
  const memory = addon.allocate(bytes);
  onTestFinished(() => addon.release(memory));
  return memory;
}

interface Outcome {
  readonly error: TileReadError | null;
  readonly microseconds: number;
  readonly cpuMicroseconds: number;
}

function read(
  reader: DiskReader,
  file: DiskFile,
  place: Pick<TileOfFile, 'offset' | 'bytes' | 'crc32c'>,
  memory: ArrayBuffer,
  at = 0,
): Promise<Outcome> {
  return new Promise(resolve => {
    const tiles = Float64Array.of(place.bytes, place.crc32c);
    addon.readRun(reader, file, place.offset, memory, at, tiles, (error, microseconds, cpuMicroseconds) =>
      resolve({ error, microseconds, cpuMicroseconds }),
    );
  });
}

/** What the system itself says of O_DIRECT on that path. */
async function systemReadsDirect(path: string): Promise<boolean> {
  try {
    const handle = await open(path, constants.O_RDONLY | constants.O_DIRECT);
    await handle.close();
    return true;
  } catch (error) {
    expect((error as NodeJS.ErrnoException).code).toBe('EINVAL');
    return false;
  }
}

describe('the addon reads tiles', () => {
  const sizes = [4096, MIB, 3 * MIB + 4096, 9 * MIB, 8192];

  for (const threads of [1, 2, 3]) {
    for (const wantDirect of [true, false]) {
      it(`with ${threads} threads, ${wantDirect ? 'past' : 'through'} the page cache`, async () => {
        const path = `${await temporaryFolder()}/tiles.bin`;
        const tiles = await writeTiles(path, sizes);
        const { file, direct, how } = addon.openFile(path, wantDirect);
        if (!wantDirect) expect(direct).toBe(false);
        expect(how === 'buffered').toBe(!direct);
        const reader = openReader(threads);
        const memory = allocate(tiles.reduce((sum, { bytes }) => sum + bytes, 0));
        const outcomes = await Promise.all(tiles.map(tile => read(reader, file, tile, memory, tile.offset)));
        addon.closeFile(file);
        for (const [i, { error, microseconds }] of outcomes.entries()) {
          const { offset, bytes, content } = tiles[i]!;
          expect(error).toBe(null);
          expect(microseconds).toBeGreaterThan(0);
          expect(Buffer.compare(new Uint8Array(memory, offset, bytes), content), `tile ${i}`).toBe(0);
        }
      });
    }
  }

  it.skipIf(process.platform !== 'linux')('directly where the file system can, and says so', async () => {
    const path = `${await temporaryFolder()}/tiles.bin`;
    await writeTiles(path, [4096]);
    const shared = `${await temporaryFolder('/dev/shm')}/tiles.bin`;
    await writeTiles(shared, [4096]);
    for (const each of [path, shared]) {
      expect(addon.openFile(each, true).direct, each).toBe(await systemReadsDirect(each));
    }
  });

  it.skipIf(process.platform !== 'linux')('through the cache where the file system refuses O_DIRECT', () => {
    expect(addon.openFile('/proc/version', true)).toMatchObject({ direct: false, how: 'buffered' });
  });
});

describe('the addon reads what is in the page cache', () => {
  it.skipIf(process.platform !== 'linux')('and says where it would have to wait', async () => {
    const path = `${await temporaryFolder()}/rows.bin`;
    const content = patternBytes(64 * 1024, 5);
    await writeFile(path, content);
    const { file } = addon.openFile(path, false);
    const target = new Uint8Array(1000);
    expect(addon.readCached(file, 4000, target)).toBe(true);
    expect(Buffer.compare(target, content.subarray(4000, 5000))).toBe(0);
    expect(addon.readCached(file, content.length - 10, target), 'across the end').toBe(false);
    const direct = addon.openFile(path, true);
    expect(addon.readCached(direct.file, 0, target)).toBe(!direct.direct);
    addon.closeFile(file);
    expect(() => addon.readCached(file, 0, target)).toThrow('file');
  });
});

describe('the addon reads runs of tiles', () => {
  const sizes = [4096, 3 * MIB, 8192, 2 * MIB + 4096];

  async function openRun() {
    const path = `${await temporaryFolder()}/tiles.bin`;
    const tiles = await writeTiles(path, sizes);
    const bytes = sizes.reduce((sum, each) => sum + each, 0);
    const memory = allocate(bytes);
    const reader = openReader(2);
    const readAll = (crcs: readonly number[]): Promise<TileReadError | null> => {
      const words = Float64Array.from(tiles.flatMap(({ bytes: each }, i) => [each, crcs[i]!]));
      const { file } = addon.openFile(path, true);
      return new Promise(resolve =>
        addon.readRun(reader, file, 0, memory, 0, words, error => resolve(error)),
      );
    };
    return { path, tiles, memory, readAll };
  }

  it('at once, each into place', async () => {
    const { tiles, memory, readAll } = await openRun();
    expect(await readAll(tiles.map(({ crc32c }) => crc32c))).toBe(null);
    for (const { offset, bytes, content } of tiles)
      expect(Buffer.compare(new Uint8Array(memory, offset, bytes), content)).toBe(0);
  });

  it('and says which of them is wrong', async () => {
    const { path, tiles, readAll } = await openRun();
    const crcs = tiles.map(({ crc32c }) => crc32c);
    const whole = Buffer.concat(tiles.map(({ content }) => content));
    for (const [part, { offset, bytes }] of tiles.entries()) {
      const bad = Buffer.from(whole);
      bad[offset + bytes - 1]! ^= 1;
      await writeFile(path, bad);
      expect(await readAll(crcs)).toMatchObject({ kind: 'crc', part, expected: crcs[part] });
      expect(await readAll(crcs.with(part, -1))).toBe(null);
    }
    await truncate(path, tiles[2]!.offset + 4096);
    expect(await readAll(crcs)).toMatchObject({ kind: 'short', part: 2, expected: 8192, actual: 4096 });
  });
});

describe('the addon finds bad tiles', () => {
  for (const wantDirect of [true, false]) {
    it(`a flipped bit in any piece (direct: ${wantDirect})`, async () => {
      const path = `${await temporaryFolder()}/tiles.bin`;
      const [tile] = await writeTiles(path, [5 * MIB]);
      const reader = openReader(2);
      const memory = allocate(5 * MIB);
      for (const at of [0, 2 * MIB + 17, 5 * MIB - 1]) {
        const bad = Buffer.from(tile!.content);
        bad[at]! ^= 4;
        await writeFile(path, bad);
        const { file } = addon.openFile(path, wantDirect);
        const { error } = await read(reader, file, tile!, memory);
        expect(error).toMatchObject({ kind: 'crc', expected: tile!.crc32c, actual: addon.crc32c(bad) });
      }
    });

    it(`a truncated file (direct: ${wantDirect})`, async () => {
      const path = `${await temporaryFolder()}/tiles.bin`;
      const [first, second] = await writeTiles(path, [4096, 4 * MIB]);
      const reader = openReader(2);
      const memory = allocate(4 * MIB);
      for (const left of [4 * MIB - 1, MIB + 4096, 100, 0]) {
        await truncate(path, 4096 + left);
        const { file } = addon.openFile(path, wantDirect);
        expect((await read(reader, file, first!, memory)).error).toBe(null);
        const { error } = await read(reader, file, second!, memory);
        expect(error).toMatchObject({ kind: 'short', expected: 4 * MIB });
        expect(error!.actual).toBe(left);
      }
    });
  }

  it('a path with nothing, a folder, or an empty name there', async () => {
    const folder = await temporaryFolder();
    const reason = (path: string): unknown => {
      try {
        return addon.openFile(path, true);
      } catch (error) {
        return error;
      }
    };
    expect(reason(`${folder}/absent`)).toMatchObject({ errno: 2 });
    expect(reason(folder)).toMatchObject({ errno: 21 });
    expect(reason(`${folder}/a\0b`)).toBeInstanceOf(RangeError);
  });
});

describe('the addon guards its objects', () => {
  it('refuses arguments that would read elsewhere', async () => {
    const path = `${await temporaryFolder()}/tiles.bin`;
    const [tile] = await writeTiles(path, [8192]);
    const reader = openReader(1);
    const { file } = addon.openFile(path, true);
    const memory = allocate(8192);
    const tiles = (bytes: number, crc: number) => Float64Array.of(bytes, crc);
    const good = [reader, file, 0, memory, 0, tiles(8192, tile!.crc32c), () => undefined] as const;
    const call = (place: number, value: unknown) => () =>
      addon.readRun(...(good.with(place, value as never) as unknown as Parameters<typeof addon.readRun>));
    expect(call(0, file)).toThrow(/reader/);
    expect(call(0, {})).toThrow(/reader/);
    expect(call(1, reader)).toThrow(/file/);
    expect(call(2, 512)).toThrow(/fileOffset/);
    expect(call(2, -4096)).toThrow(/fileOffset/);
    expect(call(3, new Uint8Array(8192))).toThrow(/memory/);
    expect(call(3, new ArrayBuffer(1 << 16))).toThrow(RangeError);
    expect(call(4, 4096)).toThrow(/memoryOffset/);
    expect(call(4, 1)).toThrow(/memoryOffset/);
    expect(call(5, tiles(0, 0))).toThrow(/tiles/);
    expect(call(5, tiles(4097, 0))).toThrow(/bytes of a tile/);
    expect(call(5, tiles(12_288, 0))).toThrow(/memory/);
    expect(call(5, tiles(8192, -2))).toThrow(/crc32c/);
    expect(call(5, tiles(8192, Number.NaN))).toThrow(/crc32c/);
    expect(call(5, new Float64Array(0))).toThrow(/tiles/);
    expect(call(5, new Float64Array(3))).toThrow(/tiles/);
    expect(call(5, [8192, 0])).toThrow(/tiles/);
    expect(call(6, null)).toThrow(/done/);
    expect(() => addon.createReader(0)).toThrow(/threads/);
    expect((await read(reader, file, tile!, memory)).error).toBe(null);
    addon.closeFile(file);
    expect(call(4, 0)).toThrow(/closed/);
  });

  it('keeps reader, file and memory while a read is under way', async () => {
    const path = `${await temporaryFolder()}/tiles.bin`;
    const [tile] = await writeTiles(path, [8 * MIB]);
    const reader = addon.createReader(1);
    const memory = addon.allocate(8 * MIB);
    const { file } = addon.openFile(path, true);
    const reading = read(reader, file, tile!, memory);
    addon.closeFile(file);
    expect(() => addon.closeReader(reader)).toThrow(/under way/);
    expect(() => addon.release(memory)).toThrow(/in use/);
    expect((await reading).error).toBe(null);
    addon.closeReader(reader);
    addon.closeReader(reader);
    addon.release(memory);
    await expect(read(reader, file, tile!, memory)).rejects.toThrow(RangeError);
  });

  const runNode = (script: string, path: string) =>
    promisify(execFile)(process.execPath, ['-e', script, ADDON, path], { timeout: 20_000 });

  it('lets the process end after its reads, with the reader open', async () => {
    const path = `${await temporaryFolder()}/tiles.bin`;
    await writeFile(path, patternBytes(2 * MIB, 1));
    const script = `
      const addon = require(process.argv[1]);
      const reader = addon.createReader(2), memory = addon.allocate(2 << 20);
      const { file } = addon.openFile(process.argv[2], true);
      addon.readRun(reader, file, 0, memory, 0, Float64Array.of(2 << 20, 0), error => console.log(error.kind));`;
    expect((await runNode(script, path)).stdout).toBe('crc\n');
  });

  it('lets the process and a worker end in the middle of reads', async () => {
    const path = `${await temporaryFolder()}/tiles.bin`;
    await writeFile(path, patternBytes(2 * MIB, 1));
    const script = `
      const { Worker, isMainThread, workerData } = require('node:worker_threads');
      const begin = (library, path) => {
        const addon = require(library);
        const reader = addon.createReader(2), memory = addon.allocate(2 << 20);
        const { file } = addon.openFile(path, true);
        for (let i = 0; i < 100; i++) addon.readRun(reader, file, 0, memory, 0, Float64Array.of(2 << 20, 0), () => {});
      };
      const [, library, path] = process.argv;
      begin(library, path);
      const source = 'const begin = ' + begin + '; const w = require("node:worker_threads").workerData;' +
        'begin(w.library, w.path); require("node:worker_threads").parentPort.postMessage(1); setInterval(() => {}, 1000);';
      const worker = new Worker(source, { eval: true, workerData: { library, path } });
      worker.on('message', async () => {
        await worker.terminate();
        console.log('ended');
        process.exit(0);
      });`;
    expect((await runNode(script, path)).stdout).toBe('ended\n');
  });
});
