import { expect, test } from 'vitest';
import { crc32c } from '../../src/disk-io/crc32c.ts';
import { PotluckError } from '../../src/errors/errors.ts';
import { Embedding } from '../../src/model/embedding.ts';
import { writeBf16Row, writeInt8Row } from '../../src/model/quantize-embedding.ts';

const width = 40;
const table = Array.from({ length: 6 }, (_, id) =>
  Float32Array.from({ length: width }, (_, j) => (id + 1) * ((j % 17) - 8) * 2 ** -6),
);

function open(
  format: 'bf16' | 'int8',
  cacheBytes: number,
  inPageCache: (offset: number) => boolean = () => false,
  recover?: (id: number, right: Uint8Array) => Promise<Uint8Array>,
) {
  const rowBytes = format === 'bf16' ? 2 * width : 4 + width;
  const file = new Uint8Array(100 + 6 * rowBytes);
  for (const [id, row] of table.entries())
    (format === 'bf16' ? writeBf16Row : writeInt8Row)(
      row,
      file.subarray(100 + id * rowBytes, 100 + (id + 1) * rowBytes),
    );
  const checks = new Uint8Array(6 * 4 + 4);
  const crcs = new DataView(checks.buffer, 4);
  const seal = () => {
    for (let id = 0; id < 6; id++)
      crcs.setUint32(4 * id, crc32c(file.subarray(100 + id * rowBytes, 100 + (id + 1) * rowBytes)), true);
  };
  seal();
  const whole = file.slice();
  let reads = 0;
  const world = { flipped: 0, cacheIsWrong: false, broken: 0, hold: async (_id: number) => undefined };
  const embedding = new Embedding({
    manifest: {
      shape: { width, vocabulary: 6, embeddingScale: 1 },
      embedding: { offset: 100, format, rowBytes },
    },
    readAt: async (offset, target) => {
      reads++;
      await world.hold((offset - 100) / rowBytes);
      if (world.broken-- > 0) throw new PotluckError('DISK_READ', 'EIO');
      target.set(file.subarray(offset, offset + target.length));
      if (world.flipped > 0) {
        world.flipped--;
        target[target.length - 1]! ^= 16;
      }
    },
    checks: checks.subarray(4),
    crc32c: bytes => crc32c(bytes),
    readCached: (offset, target) => {
      if (!inPageCache(offset)) return false;
      target.set(file.subarray(offset, offset + target.length));
      if (world.cacheIsWrong) target[1]! ^= 4;
      return true;
    },
    cacheBytes,
    ...(recover && {
      recover: (id: number) => recover(id, whole.slice(100 + id * rowBytes, 100 + (id + 1) * rowBytes)),
    }),
  });
  return { embedding, file, world, seal, reads: () => reads };
}

test('bf16 rows come back as they were', async () => {
  const target = new Float32Array(3 * width);
  await open('bf16', 0).embedding.embed([5, 0, 5], target);
  expect([...target]).toEqual([...table[5]!, ...table[0]!, ...table[5]!]);
});

test('int8 rows come back within half a step', async () => {
  const target = new Float32Array(2 * width);
  await open('int8', 0).embedding.embed([2, 3], target);
  [...table[2]!, ...table[3]!].forEach((value, i) => {
    const most = Math.max(...table[i < width ? 2 : 3]!.map(Math.abs));
    expect(Math.abs(value - target[i]!)).toBeLessThanOrEqual((most / 127 / 2) * 1.0001);
  });
});

test('a row of zeros is zeros', () => {
  const bytes = new Uint8Array(4 + width).fill(7);
  writeInt8Row(new Float32Array(width), bytes);
  expect(bytes.every(byte => byte === 0)).toBe(true);
});

test('rows are read once while they are kept, and the cache has its limit', async () => {
  const { embedding, reads } = open('bf16', 2 * 2 * width);
  const target = new Float32Array(3 * width);
  await embedding.embed([1, 1, 2], target);
  await embedding.embed([2, 1], target);
  expect(reads()).toBe(2);
  await embedding.embed([3], target);
  await embedding.embed([1, 3], target); // 2 was used longest ago and is gone; 1 and 3 are here
  expect(reads()).toBe(3);
  await embedding.embed([2], target);
  expect(reads()).toBe(4);
});

test('rows that the system has in memory are not read from disk', async () => {
  const { embedding, reads } = open('bf16', 0, offset => offset === 100 + 2 * 2 * width);
  const target = new Float32Array(2 * width);
  await embedding.embed([2, 3], target);
  expect([...target]).toEqual([...table[2]!, ...table[3]!]);
  expect(reads()).toBe(1);
});

test('ids outside the vocabulary are refused before anything is read', async () => {
  const { embedding, reads } = open('bf16', 0);
  for (const id of [6, -1, 1.5, Number.NaN])
    await expect(embedding.embed([0, id], new Float32Array(2 * width))).rejects.toMatchObject({
      code: 'BAD_REQUEST',
    });
  await expect(embedding.embed([0, 1], new Float32Array(width))).rejects.toMatchObject({ code: 'INTERNAL' });
  expect(reads()).toBe(0);
});

test('a failure waits for the reads that are under way, and nothing is written after it', async () => {
  const { embedding, file, world, reads } = open('bf16', 0);
  file[100]! ^= 1;
  let release = (): void => undefined;
  const held = new Promise<undefined>(resolve => (release = () => resolve(undefined)));
  world.hold = id => (id === 0 ? Promise.resolve(undefined) : held);
  const target = new Float32Array(2 * width).fill(7);
  let settled = false;
  const failed = embedding.embed([0, 1], target).finally(() => (settled = true));
  const expected = expect(failed).rejects.toMatchObject({ code: 'TILE_CORRUPT' });
  await new Promise(resolve => setImmediate(resolve));
  expect([reads(), settled]).toEqual([3, false]);
  release();
  await expected;
  expect(target.every(x => x === 7)).toBe(true);
});

test('a row that is no numbers is damage', async () => {
  for (const format of ['bf16', 'int8'] as const) {
    const { embedding, file, seal } = open(format, 0);
    file.fill(0xff, 100, 104);
    seal();
    await expect(embedding.embed([0], new Float32Array(width))).rejects.toMatchObject({
      code: 'TILE_CORRUPT',
      message: expect.stringContaining('not finite'),
    });
  }
});

test.each(['bf16', 'int8'] as const)(
  'any flipped bit of a %s row is an error that names the row',
  async format => {
    const { embedding, file } = open(format, 0);
    const rowBytes = format === 'bf16' ? 2 * width : 4 + width;
    for (let bit = 0; bit < rowBytes * 8; bit += 7) {
      const at = 100 + 3 * rowBytes + (bit >> 3);
      file[at]! ^= 1 << (bit & 7);
      await expect(embedding.embed([1, 3], new Float32Array(2 * width))).rejects.toMatchObject({
        code: 'TILE_CORRUPT',
        message: expect.stringContaining(`row 3 (${rowBytes} bytes)`),
      });
      file[at]! ^= 1 << (bit & 7);
    }
    await embedding.embed([3], new Float32Array(width));
  },
);

test('a row that is read wrong once is read again; twice is an error, and nothing wrong is kept', async () => {
  const { embedding, world, reads } = open('bf16', 1 << 20);
  const target = new Float32Array(width);
  world.flipped = 1;
  await embedding.embed([4], target);
  expect([...target]).toEqual([...table[4]!]);
  expect(reads()).toBe(2);
  world.flipped = 2;
  await expect(embedding.embed([5], target)).rejects.toMatchObject({ code: 'TILE_CORRUPT' });
  await embedding.embed([5], target);
  expect([...target]).toEqual([...table[5]!]);
});

test('a row that is wrong in the page cache is read from disk', async () => {
  const { embedding, world, reads } = open('bf16', 0, () => true);
  world.cacheIsWrong = true;
  const target = new Float32Array(width);
  await embedding.embed([2], target);
  expect([...target]).toEqual([...table[2]!]);
  expect(reads()).toBe(1);
});

test('a row that stays wrong, or cannot be read, comes from elsewhere, once while it is kept', async () => {
  const asked: number[] = [];
  const { embedding, file, world } = open('bf16', 1 << 20, undefined, async (id, right) => {
    asked.push(id);
    return right;
  });
  const target = new Float32Array(width);
  file[100 + 3 * 2 * width]! ^= 1;
  for (let time = 0; time < 2; time++) {
    await embedding.embed([3], target);
    expect([...target]).toEqual([...table[3]!]);
  }
  world.broken = 1;
  await embedding.embed([4], target);
  expect(asked).toEqual([3]);
  world.broken = 2;
  await embedding.embed([5], target);
  expect([...target]).toEqual([...table[5]!]);
  expect(asked).toEqual([3, 5]);
});

test('what comes from elsewhere is checked as well, and where nobody has the row the error says both', async () => {
  const damaged = open('bf16', 0, undefined, async (_, right) => right.fill(1, 0, 1));
  damaged.file[100]! ^= 1;
  const target = new Float32Array(width);
  await expect(damaged.embedding.embed([0], target)).rejects.toMatchObject({ code: 'TILE_CORRUPT' });
  const alone = open('bf16', 0, undefined, () =>
    Promise.reject(new PotluckError('DEVICE_LOST', 'nobody here')),
  );
  alone.world.broken = 2;
  await expect(alone.embedding.embed([0], target)).rejects.toMatchObject({
    code: 'DISK_READ',
    message: 'EIO It could not be fetched: nobody here',
  });
});
