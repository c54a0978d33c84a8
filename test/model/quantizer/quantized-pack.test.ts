import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import * as fs from 'node:fs/promises';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { createNativeBackend } from '../../../src/kernels/native-backend.ts';
import {
  type BuildPackOptions,
  type BuildProgress,
  buildPack,
  ROUNDING_VERSION,
  type RoundingProgress,
} from '../../../src/model/build-pack.ts';
import { allBlocks, shareInA4 } from '../../../src/model/quantizer/level-blocks.ts';
import { readLevels } from '../../../src/model/quantizer/write-levels.ts';
import type { FileSystem, OpenFile } from '../../../src/pack/file-system.ts';
import { openPackFolder } from '../../../src/pack/pack-folder.ts';
import { addon } from '../../kernels/addon-under-test.ts';
import { crc32c } from '../../pack/crc32c-table.ts';
import { temporaryFolder } from '../../pack/temporary-folder.ts';
import { packLogits } from '../pack-logits.ts';
import { randomNumbers, SMALL, writeCheckpoint } from '../small-checkpoint.ts';

const random = randomNumbers(5);
/** Four windows of 64, the context of the small model. */
const TOKENS = Array.from({ length: 260 }, () => 2 + Math.abs(Math.floor(random() * 24)));

interface BuildOptions extends Partial<BuildPackOptions> {
  readonly threads?: number;
  readonly byInputs?: boolean;
}

async function build(folder: string, name: string, more: BuildOptions = {}) {
  const backend = createNativeBackend(addon, { threads: more.threads ?? 2 });
  try {
    return await buildPack({
      checkpoint: join(folder, 'checkpoint'),
      target: join(folder, name),
      name: 'small',
      weights: 'w4',
      fileSystem: fs,
      crc32c,
      backend,
      ...(more.byInputs === false ? {} : { rounding: addon }),
      calibrationTokens: TOKENS,
      ...more,
    });
  } finally {
    backend.close();
  }
}

async function checkpointFolder(): Promise<string> {
  const folder = await temporaryFolder();
  await writeCheckpoint(join(folder, 'checkpoint'));
  return folder;
}

/** Logits of the pack `name` for some tokens that it was not calibrated on. */
async function logitsOf(folder: string, name: string): Promise<Float32Array[]> {
  const backend = createNativeBackend(addon, { threads: 1 });
  try {
    const ids = Array.from({ length: 60 }, (_, i) => 2 + ((i * 7 + (i % 5) * 11) % 46));
    return await packLogits(await openPackFolder(fs, join(folder, name)), backend, ids);
  } finally {
    backend.close();
  }
}

function squaredDistance(a: readonly Float32Array[], b: readonly Float32Array[]): number {
  let sum = 0;
  for (const [i, row] of a.entries()) for (const [j, value] of row.entries()) sum += (value - b[i]![j]!) ** 2;
  return sum;
}

async function levelsOf(folder: string, name: string): Promise<{ share: number; inA4: boolean[] }> {
  const { manifest, constants, tilesPath } = await openPackFolder(fs, join(folder, name));
  const bytes = new Uint8Array(await fs.readFile(tilesPath));
  const inA4 = await readLevels(manifest.shape, constants, async ({ kind, layer, index }) => {
    const tile = manifest.tiles.find(t => t.kind === kind && t.layer === layer && t.index === index)!;
    return bytes.slice(tile.offset, tile.offset + tile.bytes);
  });
  return { share: shareInA4(allBlocks(manifest.shape), inA4), inA4 };
}

/**
 * A disk whose process dies at a step at `target` ('sync manifest.json') when `dies` says so: before it is done, or after.
 * `open`: the open files.
 */
function dyingDisk(target: string, done: boolean, dies: (step: string) => boolean) {
  const open = new Set<OpenFile>();
  let dead = false;
  const step = async <T>(
    what: string,
    path: string,
    change: () => Promise<T>,
    undo?: (made: T) => unknown,
  ) => {
    if (!path.startsWith(target)) return change();
    const now = !dead && dies(`${what} ${basename(path)}`);
    if (!dead && !now) return change();
    dead = true;
    if (now && done) {
      const made = await change();
      await undo?.(made);
    }
    throw Object.assign(new Error('died'), { code: 'EIO' });
  };
  const openFile = async (path: string, flags: string): Promise<OpenFile> => {
    const close = (file: OpenFile) => file.close();
    const file: OpenFile = await step('open', path, () => fs.open(path, flags), close);
    const dying: OpenFile = {
      read: (...args) => step('read', path, () => file.read(...args)),
      write: (...args) => step('write', path, () => file.write(...args)),
      truncate: bytes => step('truncate', path, () => file.truncate(bytes)),
      datasync: () => step('datasync', path, () => file.datasync()),
      sync: () => step('sync', path, () => file.sync()),
      stat: () => step('stat', path, () => file.stat()),
      close: async () => {
        open.delete(dying);
        await file.close();
      },
    };
    open.add(dying);
    return dying;
  };
  const fileSystem: FileSystem = {
    open: openFile,
    stat: path => fs.stat(path),
    mkdir: path => step('mkdir', path, () => fs.mkdir(path)),
    rename: (from, to) => step('rename', to, () => fs.rename(from, to)),
    rm: (path, options) => step('rm', path, () => fs.rm(path, options)),
  };
  return { fileSystem, open };
}

describe('a pack rounded by inputs', () => {
  it('is nearer to bf16 than one rounded to the nearest', async () => {
    const folder = await checkpointFolder();
    await build(folder, 'bf16', { weights: 'bf16' });
    await build(folder, 'inputs');
    await build(folder, 'nearest', { byInputs: false });
    const exact = await logitsOf(folder, 'bf16');
    const byInputs = squaredDistance(await logitsOf(folder, 'inputs'), exact);
    const toNearest = squaredDistance(await logitsOf(folder, 'nearest'), exact);
    expect(byInputs).toBeLessThan(0.9 * toNearest);
  });

  it('comes to an end where so many tiles add up that an output of one has few bits', async () => {
    const folder = await temporaryFolder();
    const sizes = { ...SMALL, num_hidden_layers: 1, intermediate_size: 257 * 32 };
    await writeCheckpoint(join(folder, 'checkpoint'), sizes);
    const tiling = { ffnColumns: 32 };
    await build(folder, 'bf16', { weights: 'bf16', tiling });
    await build(folder, 'inputs', { tiling });
    await build(folder, 'nearest', { tiling, byInputs: false });
    const exact = await logitsOf(folder, 'bf16');
    expect(squaredDistance(await logitsOf(folder, 'inputs'), exact)).toBeLessThan(
      0.9 * squaredDistance(await logitsOf(folder, 'nearest'), exact),
    );
  });

  it('has the same bytes with any number of threads', async () => {
    const folder = await checkpointFolder();
    const one = await build(folder, 'one', { threads: 1 });
    const three = await build(folder, 'three', { threads: 3 });
    expect(three).toEqual(one);
    expect(await fs.readFile(join(folder, 'three', 'tiles.bin'))).toEqual(
      await fs.readFile(join(folder, 'one', 'tiles.bin')),
    );
    expect(await fs.readdir(join(folder, 'one'))).toEqual(await fs.readdir(join(folder, 'three')));
    expect(await fs.readdir(join(folder, 'one'))).not.toContain('journal.jsonl');
  });

  it('has the bytes that the version of rounding stands for', async () => {
    const folder = await checkpointFolder();
    await build(folder, 'pack', { activations: 'mixed' });
    const bytes = await fs.readFile(join(folder, 'pack', 'tiles.bin'));
    const digest = createHash('sha256').update(bytes).digest('hex');
    // Other bytes: raise ROUNDING_VERSION, so that no interrupted run goes on with them, and put both here.
    expect([ROUNDING_VERSION, digest.slice(0, 16)]).toEqual([2, 'dfcdd151548efbb2']);
  });

  it('goes on behind its last layer after a kill -9, to the same bytes', async () => {
    const folder = await checkpointFolder();
    const whole = await build(folder, 'whole', { activations: 'mixed' });
    const perLayer = whole.tiles.filter(tile => tile.layer === 0 && tile.kind !== 'head').length;
    for (const [name, stop, first] of [
      ['early', 1, 0],
      ['later', perLayer + 2, perLayer],
      ['head', 2 * perLayer + 1, 2 * perLayer],
    ] as const) {
      const target = join(folder, name);
      const script = fileURLToPath(new URL('build-and-hang.mjs', import.meta.url));
      const child = spawn(process.execPath, [
        ...[script, join(folder, 'checkpoint'), target],
        ...[String(stop), JSON.stringify(TOKENS)],
      ]);
      await once(child.stdout, 'data');
      child.kill('SIGKILL');
      await once(child, 'exit');
      const said: RoundingProgress[] = [];
      const resumed = await build(folder, name, {
        activations: 'mixed',
        onProgress: progress => void said.push(progress as RoundingProgress),
      });
      expect(said[0]!.tiles).toBe(first);
      expect(said[0]!.layer).toBe(Math.floor(first / perLayer));
      expect(said[0]!.done / said[0]!.total).toBeGreaterThanOrEqual((0.4 * first) / perLayer);
      expect(said.at(-1)!.done).toBeCloseTo(said.at(-1)!.total, -1);
      expect(resumed).toEqual(whole);
      expect(await fs.readFile(join(target, 'tiles.bin'))).toEqual(
        await fs.readFile(join(folder, 'whole', 'tiles.bin')),
      );
    }
  });

  it.each([
    ['before', false],
    ['after', true],
  ])('loses nothing and leaves nothing open where it dies %s any step behind the head', async (_, done) => {
    const folder = await checkpointFolder();
    const whole = await build(folder, 'whole', { activations: 'mixed' });
    const target = join(folder, 'pack');
    const run = async (dies: (step: string) => boolean) => {
      const disk = dyingDisk(target, done, dies);
      const said: BuildProgress[] = [];
      const built = build(folder, 'pack', {
        activations: 'mixed',
        fileSystem: disk.fileSystem,
        onProgress: progress => void said.push(progress),
      });
      const error = await built.then(
        () => undefined,
        (failure: unknown) => failure,
      );
      expect(disk.open.size).toBe(0);
      return { error, said };
    };
    // Lines of the run, the embedding, two layers and the head.
    let lines = 0;
    await run(step => lines === 5 || (step === 'datasync journal.jsonl' && ++lines === 6));
    expect(lines).toBe(5);
    const lasts = new Set<string>();
    for (let left = 0; !(await fs.readdir(folder)).includes('pack') && left < 500; left++) {
      let count = 0;
      const { error, said } = await run(step => count++ === left && lasts.add(step).size > 0);
      expect(said).toEqual([]);
      if (error) expect(error).toMatchObject({ code: expect.stringMatching(/^DISK_/) });
    }
    expect([...lasts]).toEqual(
      expect.arrayContaining(['sync manifest.json', 'rm residuals-1.bin', 'rename pack']),
    );
    expect((await openPackFolder(fs, target)).manifest).toEqual(whole);
    const names = (await fs.readdir(target)).filter(name => name !== 'journal.jsonl'); // it died while that was removed
    expect(names).toEqual(await fs.readdir(join(folder, 'whole')));
    const bytes = await fs.readFile(join(target, 'tiles.bin'));
    expect(bytes.equals(await fs.readFile(join(folder, 'whole', 'tiles.bin')))).toBe(true);
  });

  it.each([
    ['calibration', { calibrationTokens: TOKENS.toReversed() }],
    ['levels', { activations: 'mixed' }],
  ] as const)('begins anew where there are other %s', async (_, other) => {
    const folder = await checkpointFolder();
    const stop = new Error('enough');
    const interrupted = build(folder, 'pack', {
      onProgress: progress => {
        if (progress.stage === 'round' && progress.layer === 1) throw stop;
      },
    });
    await expect(interrupted).rejects.toBe(stop);
    expect(await fs.readdir(folder)).toContain('pack.unfinished');
    const said: BuildProgress[] = [];
    await build(folder, 'pack', {
      ...other,
      onProgress: progress => void said.push(progress),
    });
    expect(said[0]).toMatchObject({ stage: 'round', layer: 0, tiles: 0 });
    expect(await fs.readdir(folder)).not.toContain('pack.unfinished');
  });

  it('begins anew where what an interrupted run left was removed halfway', async () => {
    const folder = await checkpointFolder();
    const stop = new Error('enough');
    const onProgress = (progress: BuildProgress) => {
      if (progress.stage === 'round' && progress.layer === 1) throw stop;
    };
    await expect(build(folder, 'pack', { onProgress })).rejects.toBe(stop);
    const rm: FileSystem['rm'] = async (path, options) => {
      if (!options.recursive) return fs.rm(path, options);
      await fs.rm(join(path, 'tiles.bin'));
      throw stop;
    };
    const other = { activations: 'a4', fileSystem: { ...fs, rm } } as const;
    await expect(build(folder, 'pack', other)).rejects.toMatchObject({ code: 'DISK_WRITE' });
    await build(folder, 'pack');
    expect(await fs.readdir(folder)).toContain('pack');
  });

  it('has the levels that were asked for', async () => {
    const folder = await checkpointFolder();
    const a8 = await build(folder, 'a8');
    await build(folder, 'mixed', { activations: 'mixed' });
    await build(folder, 'a4', { activations: 'a4' });
    expect((await levelsOf(folder, 'a8')).share).toBe(0);
    expect((await levelsOf(folder, 'a4')).share).toBe(1);
    const mixed = await levelsOf(folder, 'mixed');
    expect(mixed.share).toBeGreaterThanOrEqual(0.8);
    expect(new Set(mixed.inA4).size).toBe(2);
    expect(a8.origin.multiplyAddsInA4).toBe(0);
    const exact = await logitsOf(folder, 'a8');
    expect(squaredDistance(await logitsOf(folder, 'mixed'), exact)).toBeLessThan(
      squaredDistance(await logitsOf(folder, 'a4'), exact),
    );
  });
});
