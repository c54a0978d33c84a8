import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { LayerwisePack } from '../../../src/cli/eval/layerwise-pack.ts';
import { createNativeBackend } from '../../../src/kernels/native-backend.ts';
import { buildPack } from '../../../src/model/build-pack.ts';
import { openPackFolder } from '../../../src/pack/pack-folder.ts';
import { addon } from '../../kernels/addon-under-test.ts';
import { packLogits } from '../../model/pack-logits.ts';
import { writeCheckpoint } from '../../model/small-checkpoint.ts';
import { crc32c } from '../../pack/crc32c-table.ts';
import { temporaryFolder } from '../../pack/temporary-folder.ts';

const IDS = Array.from({ length: 50 }, (_, i) => 2 + ((i * 13) % 47));
const OTHER = IDS.toReversed();

async function packs(weights: 'w4' | 'bf16', activations: 'a8' | 'a4' | 'mixed' = 'a8') {
  const folder = await temporaryFolder();
  const backend = createNativeBackend(addon, { threads: 2 });
  await writeCheckpoint(join(folder, 'checkpoint'));
  const target = join(folder, 'pack');
  await buildPack({
    checkpoint: join(folder, 'checkpoint'),
    target,
    name: 'small',
    weights,
    activations,
    fileSystem: fs,
    crc32c,
    backend,
    rounding: addon,
    calibrationTokens: IDS,
  });
  return { target, backend };
}

async function logitsOf(
  target: string,
  backend: ReturnType<typeof createNativeBackend>,
  activations: 'a4' | 'a8' | null,
) {
  const pack = await LayerwisePack.open(target, { activations, kvBits: null });
  const residuals = await pack.residuals(backend, [IDS, OTHER], () => undefined);
  const rows: Float32Array[][] = [[], []];
  await pack.eachLogits(backend, residuals, (window, _, logits) => rows[window]!.push(logits.slice()));
  await pack.close();
  return { rows, share: pack.shareInA4 };
}

for (const weights of ['bf16', 'w4'] as const)
  it(`gives the bits of whole passes, ${weights}`, async () => {
    const { target, backend } = await packs(weights, weights === 'w4' ? 'mixed' : 'a8');
    const { rows } = await logitsOf(target, backend, null);
    const pack = await openPackFolder(fs, target);
    for (const [i, ids] of [IDS, OTHER].entries())
      expect(rows[i]).toEqual(await packLogits(pack, backend, ids));
    backend.close();
  });

it('changes the levels of a pack to those that another pack was made with', async () => {
  const a8 = await packs('w4', 'a8');
  const a4 = await packs('w4', 'a4');
  const changed = await logitsOf(a8.target, a8.backend, 'a4');
  const made = await logitsOf(a4.target, a4.backend, null);
  expect(changed).toEqual(made);
  expect(changed.share).toBe(1);
  expect((await logitsOf(a8.target, a8.backend, null)).rows).not.toEqual(made.rows);
  a8.backend.close();
  a4.backend.close();
});

it('refuses mixed levels that a pack has not, and measures with other keys and values', async () => {
  const { target, backend } = await packs('w4');
  await expect(LayerwisePack.open(target, { activations: 'mixed', kvBits: null })).rejects.toThrow(
    'all its activations have one level',
  );
  const wide = await LayerwisePack.open(target, { activations: null, kvBits: 16 });
  const residuals = await wide.residuals(backend, [IDS], () => undefined);
  await wide.close();
  const packed = await LayerwisePack.open(target, { activations: null, kvBits: null });
  expect(residuals).not.toEqual(await packed.residuals(backend, [IDS], () => undefined));
  await packed.close();
  backend.close();
});
