import { execFile } from 'node:child_process';
import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';
import { createNativeBackend } from '../../../src/kernels/native-backend.ts';
import { defaultNumbers } from '../../../src/model/activation-levels.ts';
import { buildPack } from '../../../src/model/build-pack.ts';
import { chooseTiling } from '../../../src/model/cut-tiling.ts';
import { findShape, parseShapes } from '../../../src/model/named-shapes.ts';
import { quantizerBytes } from '../../../src/model/quantizer/quantizer-memory.ts';
import type { ModelShape } from '../../../src/pack/manifest.ts';
import { addon } from '../../kernels/addon-under-test.ts';
import { crc32c } from '../../pack/crc32c-table.ts';
import { temporaryFolder } from '../../pack/temporary-folder.ts';
import { SMALL, writeCheckpoint } from '../small-checkpoint.ts';

const GIB = 2 ** 30;
const TOKENS = Array.from({ length: 260 }, (_, i) => 2 + ((i * 7 + (i % 5) * 11) % 46));

it('holds nothing of the layers that are done', async () => {
  const folder = await temporaryFolder();
  const layers = 6;
  const sizes = {
    ...SMALL,
    hidden_size: 256,
    intermediate_size: 512,
    head_dim: 64,
    num_hidden_layers: layers,
  };
  await writeCheckpoint(join(folder, 'checkpoint'), sizes);
  const script = fileURLToPath(new URL('build-and-measure.mjs', import.meta.url));
  const args = [
    '--expose-gc',
    script,
    join(folder, 'checkpoint'),
    join(folder, 'pack'),
    JSON.stringify(TOKENS),
  ];
  const { stdout } = await promisify(execFile)(process.execPath, args);
  const alive = JSON.parse(stdout) as number[];
  expect(alive.length).toBe(layers + 1);
  const layerBytes = ((await fs.stat(join(folder, 'pack', 'tiles.bin'))).size - 50 * 260) / layers;
  // The first layer takes buffers that stay; from then on it is the same ones.
  expect(Math.max(...alive.slice(2)) - alive[1]!).toBeLessThan(0.5 * layerBytes);
});

/** Shape of a pack of a named model with other layers. */
async function shapeOf(name: string, layers?: number): Promise<ModelShape> {
  const file = new URL('../../../models/shapes.txt', import.meta.url);
  const { shape } = findShape(parseShapes(await fs.readFile(file, 'utf8'), 'shapes.txt'), name).config;
  const some = layers ?? shape.layers;
  const features = Array.from({ length: some }, () => shape.layerFeatures[0]!);
  const resized = { ...shape, layers: some, layerFeatures: features };
  return { ...resized, ...defaultNumbers('w4'), tiling: chooseTiling(resized) };
}

it('reckons that a model of 70 billion weights fits a device of 8 GiB, whatever its layers', async () => {
  const all = quantizerBytes(await shapeOf('llama-2-70b'));
  expect(all).toBeLessThan(4 * GIB);
  expect(all - quantizerBytes(await shapeOf('llama-2-70b', 2))).toBeLessThan(0.1 * all);
});

it('refuses what does not fit before anything is written', async () => {
  const folder = await temporaryFolder();
  await writeCheckpoint(join(folder, 'checkpoint'));
  const backend = createNativeBackend(addon, { threads: 1 });
  const building = buildPack({
    checkpoint: join(folder, 'checkpoint'),
    target: join(folder, 'pack'),
    name: 'small',
    weights: 'w4',
    fileSystem: fs,
    crc32c,
    backend,
    rounding: addon,
    calibrationTokens: TOKENS,
    memoryBytes: 100 * 2 ** 20,
  });
  await expect(building).rejects.toMatchObject({
    code: 'MEMORY_TOO_SMALL',
    message: expect.stringMatching(/takes about \d+ MiB of memory, and 100 MiB may be used/),
  });
  backend.close();
  expect(await fs.readdir(folder)).toEqual(['checkpoint']);
});
