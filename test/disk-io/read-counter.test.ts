import { expect, test } from 'vitest';
import { ReadCounter, TileFault } from '../../src/disk-io/read-counter.ts';
import type { Stretch } from '../../src/disk-io/tile-run.ts';
import { PotluckError } from '../../src/errors/errors.ts';

test('of several tiles that are read at once, the one that the disk cannot read is fetched, and no other', async () => {
  const moved = new Set<number>();
  const locate = (tile: number) => ({
    path: moved.has(tile) ? 'elsewhere' : 'pack',
    offset: tile * 4096,
    bytes: 4096,
    crc32c: 0,
  });
  const reads: string[] = [];
  const counter = new ReadCounter({
    locate,
    // A failing call says nothing about which of its bytes it could not read: the first tile is named.
    read: async ({ path, tiles, memoryOffset }: Stretch) => {
      reads.push(`${path} ${tiles.join()} to ${memoryOffset}`);
      if (path === 'pack' && tiles.includes(2))
        throw new TileFault(tiles[0]!, new PotluckError('DISK_READ', 'EIO'));
      return { microseconds: 1, cpuMicroseconds: 1 };
    },
    recover: async tile => void moved.add(tile),
  });
  await counter.run([0, 1, 2, 3], new ArrayBuffer(0), 8192);
  expect([...moved]).toEqual([2]);
  expect(reads).toEqual([
    'pack 0,1,2,3 to 8192',
    'pack 0 to 8192',
    'pack 1 to 12288',
    'pack 2 to 16384',
    'elsewhere 2 to 16384',
    'pack 3 to 20480',
  ]);
  expect(counter.stats()).toMatchObject({ reads: 4, bytes: 4 * 4096, retries: 1, recovered: 1 });
});
