import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { Divergence } from '../../../src/cli/eval/divergence.ts';
import { LayerwisePack } from '../../../src/cli/eval/layerwise-pack.ts';
import { createNativeBackend } from '../../../src/kernels/native-backend.ts';
import { buildPack } from '../../../src/model/build-pack.ts';
import { addon } from '../../kernels/addon-under-test.ts';
import { sharedJson } from '../../model/shared-files.ts';
import { crc32c } from '../../pack/crc32c-table.ts';
import { temporaryFolder } from '../../pack/temporary-folder.ts';

const SHARED = fileURLToPath(new URL('../../../../shared/golden/', import.meta.url));

// Windows, norms of heads and behind half layers, biases, experts: each has a part in what panels see.
for (const name of ['gemma3-text', 'qwen2-bias', 'qwen3-moe'])
  test(`rounding by inputs brings ${name} nearer to bf16 than rounding to the nearest`, async ctx => {
    const { vocab_size: vocabulary } = sharedJson(ctx, `golden/${name}/config.json`) as {
      vocab_size: number;
    };
    let state = 7;
    const draw = () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return Math.floor((state / 2 ** 32) * vocabulary);
    };
    const calibration = Array.from({ length: 1500 }, draw);
    const text = Array.from({ length: 128 }, draw);
    const folder = await temporaryFolder();
    const backend = createNativeBackend(addon, { threads: 2 });
    const logits: Record<string, Float32Array[]> = {};
    for (const [kind, options] of [
      ['exact', { weights: 'bf16' }],
      ['nearest', { weights: 'w4' }],
      ['inputs', { weights: 'w4', rounding: addon }],
    ] as const) {
      const target = join(folder, kind);
      await buildPack({
        checkpoint: join(SHARED, name),
        target,
        name,
        fileSystem: fs,
        crc32c,
        backend,
        calibrationTokens: calibration,
        ...options,
      });
      const pack = await LayerwisePack.open(target, { activations: null, kvBits: null });
      const residuals = await pack.residuals(backend, [text], () => undefined);
      const rows: Float32Array[] = [];
      await pack.eachLogits(backend, residuals, (_, __, row) => rows.push(row.slice()));
      await pack.close();
      logits[kind] = rows;
    }
    backend.close();
    const divergence = (kind: string) => {
      const sums = new Divergence();
      for (const [i, row] of logits[kind]!.entries()) sums.add(row, 0, logits.exact![i]!);
      return sums.divergence;
    };
    expect(divergence('inputs')).toBeLessThan(0.97 * divergence('nearest'));
  });
