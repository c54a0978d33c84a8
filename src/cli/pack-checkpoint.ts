import * as fileSystem from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { loadBackend } from '../daemon/load-backend.ts';
import { firstBudget } from '../daemon/memory-budget.ts';
import { processMemory, systemMemory } from '../daemon/process-memory.ts';
import { projectRoot } from '../daemon/project-root.ts';
import { crc32c } from '../disk-io/crc32c.ts';
import { PotluckError } from '../errors/errors.ts';
import { type BuildProgress, buildPack, type RopePrecision } from '../model/build-pack.ts';
import { openCheckpoint } from '../model/checkpoint.ts';
import { tokenizerOfJson } from '../model/pack-tokenizer.ts';
import type { ActivationLevels } from '../model/quantizer/level-blocks.ts';
import type { Tokenizer } from '../model/tokenizer.ts';
import type { Manifest, WeightFormat } from '../pack/manifest.ts';
import { PACK_FILE_BYTES } from '../pack/read-manifest.ts';
import { defaultThreads } from './default-threads.ts';

/** inputs: by the inputs that weights see (GPTQ), which takes far longer. nearest: each by itself. */
export type RoundingMethod = 'inputs' | 'nearest';

export interface PackOptions {
  /** Folder of a checkpoint in the Hugging Face layout, or a GGUF file. */
  readonly checkpoint: string;
  /** Folder of the pack; must not exist yet. */
  readonly target: string;
  readonly name: string;
  readonly weights: WeightFormat;
  /** Attention tiles of one KV head; null: chosen from the shape. */
  readonly attentionParts: number | null;
  /** See BuildPackOptions. */
  readonly ropePrecision: RopePrecision;
  /** Where the weights come from; goes into the manifest. */
  readonly origin?: Readonly<Record<string, string | number>>;
  /** How w4 weights are rounded; nearest unless given. */
  readonly rounding?: RoundingMethod;
  /** Levels of activations of a w4 pack that is rounded by inputs; a8 unless given. */
  readonly activations?: ActivationLevels;
  /** Most bytes of this process; what the system can spare unless given. */
  readonly memoryBytes?: number;
  /** A text to calibrate on; the built-in one unless given. */
  readonly calibrationFile?: string;
  readonly onProgress: (progress: BuildProgress) => void;
}

/** Makes a pack of a checkpoint; calibrates on a short text, where the checkpoint has a tokenizer. See buildPack. */
export async function packCheckpoint(options: PackOptions): Promise<Manifest> {
  const { checkpoint, target, name, weights, attentionParts, ropePrecision, onProgress } = options;
  const byInputs = weights === 'w4' && options.rounding === 'inputs';
  if ((options.activations ?? 'a8') !== 'a8' && !byInputs)
    throw new PotluckError(
      'BAD_OPTION',
      `--activations ${options.activations} needs --weights w4 and --rounding inputs, which finds out where 4 bits do little damage.`,
    );
  const tokenizer = await checkpointTokenizer(checkpoint);
  const loaded = await loadBackend({ backend: 'auto', kernel: null, threads: defaultThreads() });
  try {
    return await buildPack({
      checkpoint,
      target,
      name,
      weights,
      fileSystem,
      crc32c,
      backend: loaded.backend,
      onProgress,
      ropePrecision,
      ...(options.origin === undefined ? {} : { origin: options.origin }),
      ...(byInputs && loaded.addon ? { rounding: loaded.addon } : {}),
      memoryBytes: options.memoryBytes ?? spareBytes(),
      ...(options.activations === undefined ? {} : { activations: options.activations }),
      ...(attentionParts === null ? {} : { tiling: { partsPerKvHead: attentionParts } }),
      ...(tokenizer === null
        ? {}
        : {
            calibrationTokens: tokenizer.encode(await calibrationText(options.calibrationFile), {
              special: false,
            }),
          }),
    });
  } finally {
    loaded.backend.close();
  }
}

/** What this process may take without others suffering. */
const spareBytes = (): number => firstBudget(systemMemory(), processMemory().residentBytes);

/** Text of many kinds. Rejects with DISK_READ. */
async function calibrationText(file = join(projectRoot(), 'models', 'calibration.txt')): Promise<string> {
  try {
    return await fileSystem.readFile(file, 'utf8');
  } catch (error) {
    throw new PotluckError('DISK_READ', `${file} cannot be read: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/** The tokenizer of a checkpoint, or null where it has none. Rejects where its files are broken. */
export async function checkpointTokenizer(path: string): Promise<Tokenizer | null> {
  const checkpoint = await openCheckpoint(fileSystem, path);
  try {
    const json = await checkpoint.readJson('tokenizer.json', PACK_FILE_BYTES);
    const config = await checkpoint.readJson('tokenizer_config.json', PACK_FILE_BYTES);
    return json === undefined ? null : tokenizerOfJson(json, config ?? {});
  } finally {
    await checkpoint.close();
  }
}

/** The parsed file, or null where there is none. Rejects with CHECKPOINT_INVALID where it is not JSON. */
export async function readJson(path: string): Promise<unknown> {
  let text: string;
  try {
    text = await fileSystem.readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw new PotluckError('DISK_READ', `${path} cannot be read: ${(error as Error).message}`, {
      cause: error,
    });
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new PotluckError('CHECKPOINT_INVALID', `${path} is not JSON: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/** A pack's name made of its checkpoint's folder: 'Llama 3.2 1B/' -> 'Llama-3.2-1B', 'x.gguf' -> 'x'. */
export function nameOf(checkpoint: string): string {
  const name = basename(resolve(checkpoint))
    .replace(/\.gguf$/i, '')
    .replace(/[^A-Za-z0-9._-]+/g, '-')
    .replace(/^[^A-Za-z0-9]+/, '');
  return name.slice(0, 100) || 'model';
}
