import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { createEngine } from '../../src/engine/engine.ts';
import { GREEDY } from '../../src/engine/generate.ts';
import { PlanRunner } from '../../src/engine/plan-runner.ts';
import type { Backend } from '../../src/kernels/backend.ts';
import { SCRIPT_LOGIT_MATH } from '../../src/kernels/logit-math.ts';
import { createNativeBackend } from '../../src/kernels/native-backend.ts';
import { buildPack } from '../../src/model/build-pack.ts';
import { openPackFolder, type PackFolder } from '../../src/pack/pack-folder.ts';
import { collect } from '../engine/requests.ts';
import { addon, floatBits, randomSource } from '../kernels/addon-under-test.ts';
import { safetensorsBytes } from '../model/small-checkpoint.ts';
import { crc32c } from '../pack/crc32c-table.ts';
import { temporaryFolder } from '../pack/temporary-folder.ts';
import { ClusterInProcess } from './cluster-in-process.ts';
import { CONFIGS } from './configs.ts';
import { type Config, oracleLogits, type Tensors } from './oracle.ts';
import { stacked, writeRandomCheckpoint } from './random-checkpoint.ts';

const backends: Backend[] = Array.from({ length: 3 }, () => createNativeBackend(addon, { threads: 1 }));
afterAll(() => {
  for (const backend of backends) backend.close();
});

const idsOf = (c: Config, count: number): number[] => {
  const random = randomSource(5);
  return Array.from({ length: count }, () => Math.floor(random() * c.vocab_size));
};

async function pack(folder: string, weights: 'bf16' | 'w4'): Promise<PackFolder> {
  const target = join(folder, weights);
  const options = { checkpoint: join(folder, 'checkpoint'), target, name: 'family', weights };
  await buildPack({ ...options, fileSystem: fs, crc32c, backend: backends[0]! });
  return openPackFolder(fs, target);
}

async function onCluster<T>(
  of: PackFolder,
  options: { devices: number; memory?: number },
  use: (cluster: ClusterInProcess) => Promise<T>,
): Promise<T> {
  const cluster = await ClusterInProcess.open(of, backends, options);
  try {
    return await use(cluster);
  } finally {
    await cluster.close();
  }
}

/** Root mean square of the difference over that of the exact values. */
function relativeError(rows: readonly Float32Array[], exact: readonly Float64Array[]): number {
  let difference = 0;
  let size = 0;
  exact.forEach((row, t) => {
    row.forEach((value, i) => {
      difference += (rows[t]![i]! - value) ** 2;
      size += value ** 2;
    });
  });
  return Math.sqrt(difference / size);
}

const bits = (rows: readonly Float32Array[]) => rows.map(floatBits);

/** The likeliest tokens after a prompt; `lengthsOf`: what counts for the rotation of each token when there are `tokens`. */
function greedy(
  config: Config,
  tensors: Tensors,
  prompt: readonly number[],
  count: number,
  lengthsOf: (tokens: number) => number[],
): number[] {
  const ids = [...prompt];
  while (ids.length < prompt.length + count) {
    const last = oracleLogits(config, tensors, ids, lengthsOf(ids.length)).at(-1)!;
    ids.push(last.indexOf(Math.max(...last)));
  }
  return ids.slice(prompt.length);
}

const PROMPT = 12;

test.each([
  // All keys are made anew where the sequence grows over 16.
  ['phi3, longrope, long', (tokens: number) => Array.from({ length: tokens }, () => tokens)],
  // Keys stay as they were made: with the length of the prompt, or with what the sequence had by then.
  [
    'llama, dynamic scaling',
    (tokens: number) => Array.from({ length: tokens }, (_, t) => Math.max(PROMPT, t + 1)),
  ],
] as const)('%s: an answer grows over a length at which rotations change', async (name, lengthsOf) => {
  const config = CONFIGS[name]!;
  const folder = await temporaryFolder();
  const tensors = await writeRandomCheckpoint(join(folder, 'checkpoint'), config);
  const prompt = idsOf(config, PROMPT);
  const answered = await onCluster(await pack(folder, 'bf16'), { devices: 1 }, async cluster => {
    const runner = new PlanRunner({ setTimeout, clearTimeout: () => undefined });
    const embed = (ids: readonly number[], target: Float32Array) => cluster.embed(ids, target);
    runner.begin({ epoch: 1, device: cluster.devices[0]!, star: null, kvPages: 64, embed });
    const engine = createEngine({
      runner,
      logitMath: SCRIPT_LOGIT_MATH,
      limits: { maxSequences: 1, maxQueue: 1 },
    });
    const request = { prompt, generated: [], maxTokens: 12, stopTokens: [], sampling: GREEDY };
    const events = await collect(engine, request);
    await engine.close();
    return events.flatMap(event => (event.type === 'token' ? [event.id] : []));
  });
  expect(answered).toEqual(greedy(config, tensors, prompt, 12, lengthsOf));
});

test.each(['mixtral', 'qwen3_moe with a dense layer, shares as they are'])(
  '%s: experts that are stacked give the same pack',
  async name => {
    const config = CONFIGS[name]!;
    const [one, other] = [await temporaryFolder(), await temporaryFolder()];
    const tensors = await writeRandomCheckpoint(join(one, 'checkpoint'), config);
    await writeRandomCheckpoint(join(other, 'checkpoint'), config);
    const file = join(other, 'checkpoint', 'model.safetensors');
    await fs.writeFile(file, safetensorsBytes(stacked(config, tensors), 'BF16'));
    const [a, b] = [await pack(one, 'bf16'), await pack(other, 'bf16')];
    expect(b.manifest.tiles).toEqual(a.manifest.tiles);
    expect(b.manifest.constants.sha256).toBe(a.manifest.constants.sha256);
  },
);

describe.each(Object.entries(CONFIGS))('%s', (_name, config) => {
  test('computes what transformers does, the same bits on every cluster', async () => {
    const folder = await temporaryFolder();
    const tensors = await writeRandomCheckpoint(join(folder, 'checkpoint'), config);
    const text = config.text_config ?? config;
    const ids = idsOf(text, 23);
    const exact = oracleLogits(text, tensors, ids);
    for (const [weights, most] of [
      ['bf16', 2e-6], // seen: up to 4e-7
      ['w4', 0.35], // seen: up to 0.25; of weights, inputs, keys and values
    ] as const) {
      const packed = await pack(folder, weights);
      const alone = await onCluster(packed, { devices: 1 }, async cluster => {
        const rows = await cluster.logits(ids, 64);
        expect(cluster.devices[0]!.saturated).toBe(0);
        expect(bits(await cluster.logits(ids, 1))).toEqual(bits(rows));
        return rows;
      });
      expect(relativeError(alone, exact)).toBeLessThan(most);
      const shared = await onCluster(packed, { devices: 3 }, cluster => cluster.logits(ids, 7));
      expect(bits(shared)).toEqual(bits(alone));
      const streamed = await onCluster(packed, { devices: 2, memory: 0.3 }, cluster =>
        cluster.logits(ids, 9),
      );
      expect(bits(streamed)).toEqual(bits(alone));
    }
  });
});
