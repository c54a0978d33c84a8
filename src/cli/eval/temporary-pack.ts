import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { RopePrecision } from '../../model/build-pack.ts';
import type { Manifest, WeightFormat } from '../../pack/manifest.ts';
import { nameOf, type PackOptions, packCheckpoint } from '../pack-checkpoint.ts';

/** Makes a pack of a checkpoint in a folder of its own, runs `work`, removes the folder. */
export async function withTemporaryPack<T>(
  checkpoint: string,
  weights: WeightFormat,
  work: (folder: string, manifest: Manifest) => Promise<T>,
  ropePrecision: RopePrecision = 'float32',
  more: Partial<PackOptions> = {},
): Promise<T> {
  const parent = await mkdtemp(join(tmpdir(), 'potluck-eval-'));
  try {
    const target = join(parent, 'pack');
    const name = nameOf(checkpoint);
    const options = {
      checkpoint,
      target,
      name,
      weights,
      attentionParts: null,
      ropePrecision,
      onProgress: () => undefined,
      ...more,
    };
    return await work(target, await packCheckpoint(options));
  } finally {
    await rm(parent, { recursive: true, force: true });
  }
}
