import { statSync } from 'node:fs';
import { loadAddon } from '../../daemon/load-backend.ts';
import { PotluckError } from '../../errors/errors.ts';

/** What the disk gives by itself: large direct reads of a file, with nothing checked and nothing computed. */

export interface RawRate {
  readonly bytesPerSecond: number;
  /** 'O_DIRECT', or 'buffered' where the file system has no direct reads: then the figure is not the disk's. */
  readonly how: string;
}

const READ_BYTES = 4 << 20;
const DEPTH = 4;
/** What the processor reads of memory while a disk is measured beside it: much more than the last cache. */
const BESIDE_BYTES = 1 << 28;

function diskAddon(): NonNullable<ReturnType<typeof loadAddon>['addon']> {
  const { addon } = loadAddon();
  if (addon) return addon;
  throw new PotluckError('KERNEL_FAILED', 'The disk is measured by the native addon: npm run setup');
}

/** The same as `rawReadRate` while `computeThreads` threads read memory as fast as they can, as threads do that decode. */
export async function busyReadRate(
  path: string,
  bytes: number,
  threads: number,
  salt: number,
  computeThreads: number,
): Promise<RawRate> {
  const addon = diskAddon();
  const memory = addon.allocate(BESIDE_BYTES);
  const [program] = addon.limitPrograms().read;
  let ended = false;
  const beside = async (): Promise<void> => {
    while (!ended) await addon.measureRead(memory, BESIDE_BYTES, program!, computeThreads, 1);
  };
  // Its pages are made before anything is measured.
  await addon.measureRead(memory, BESIDE_BYTES, program!, computeThreads, 1);
  const reading = beside();
  try {
    return await rawReadRate(path, bytes, threads, salt);
  } finally {
    ended = true;
    await reading;
    addon.release(memory);
  }
}

/** Reads `bytes` of the file from a place that `salt` chooses on, with `threads` threads. */
export async function rawReadRate(
  path: string,
  bytes: number,
  threads: number,
  salt: number,
): Promise<RawRate> {
  const addon = diskAddon();
  const pieces = Math.floor(statSync(path).size / READ_BYTES);
  if (pieces === 0) throw new PotluckError('BAD_OPTION', `${path} is too small to measure a disk with.`);
  const memory = addon.allocate(DEPTH * READ_BYTES);
  new Uint8Array(memory).fill(1);
  const reader = addon.createReader(threads);
  const { file, how } = addon.openFile(path, true);
  const unchecked = Float64Array.of(READ_BYTES, -1);
  const count = Math.ceil(bytes / READ_BYTES);
  let next = 0;
  const lane = async (slot: number): Promise<void> => {
    for (let i = next++; i < count; i = next++) {
      const offset = ((salt * 37 + i) % pieces) * READ_BYTES;
      await new Promise<void>((resolve, reject) => {
        addon.readRun(reader, file, offset, memory, slot * READ_BYTES, unchecked, error =>
          error ? reject(new PotluckError('DISK_READ', `${path}: ${error.message}`)) : resolve(),
        );
      });
    }
  };
  const start = performance.now();
  try {
    await Promise.all(Array.from({ length: DEPTH }, (_, slot) => lane(slot)));
    return { bytesPerSecond: (count * READ_BYTES) / ((performance.now() - start) / 1000), how };
  } finally {
    addon.closeFile(file);
    addon.closeReader(reader);
    addon.release(memory);
  }
}

/** Threads with which this disk is faster, one or two: medians of reads in turns. */
export async function bestRawThreads(path: string, bytes: number): Promise<number> {
  const rates: [number[], number[]] = [[], []];
  for (let turn = 0; turn < 3; turn++) {
    rates[0].push((await rawReadRate(path, bytes, 1, 2 * turn)).bytesPerSecond);
    rates[1].push((await rawReadRate(path, bytes, 2, 2 * turn + 1)).bytesPerSecond);
  }
  const [one, two] = rates.map(list => list.sort((a, b) => a - b)[1]!);
  return one! > two! ? 1 : 2;
}
