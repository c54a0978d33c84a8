import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import * as fs from 'node:fs/promises';
import { join } from 'node:path';
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
