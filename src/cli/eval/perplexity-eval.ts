import { existsSync } from 'node:fs';
import * as fileSystem from 'node:fs/promises';
import { join } from 'node:path';
import { PotluckError } from '../../errors/errors.ts';
import { openTokenizer } from '../../model/open-tokenizer.ts';
import type { ActivationLevels } from '../../model/quantizer/level-blocks.ts';
import type { ModelShape, WeightFormat } from '../../pack/manifest.ts';
import { checkpointTokenizer } from '../pack-checkpoint.ts';
import { PackProgress } from '../pack-progress.ts';
import {
  measurePerplexity,
  type PerplexityRow,
  type PerplexitySubject,
  readTexts,
} from './perplexity-report.ts';
import { withTemporaryPack } from './temporary-pack.ts';

export interface PerplexityEvalOptions {
  /** A checkpoint, of which packs are made, or a pack. */
  readonly model: string;
  readonly texts: readonly string[];
  /** The checkpoint that a pack is compared with, or null. */
  readonly reference: string | null;
  readonly weights: WeightFormat;
  /** null: a checkpoint at all levels, a pack as it is. */
  readonly activations: ActivationLevels | null;
  readonly kvBits: ModelShape['kvBits'] | null;
  /** Windows of a text, at most. */
  readonly windows: number;
  /** Predictions of a window. */
  readonly window: number;
  readonly calibrationFile: string | null;
  readonly onProgress: (line: string) => void;
}

/** Perplexity, and KL divergence from bf16, of a pack or of packs of a checkpoint; see measurePerplexity. */
export async function evalPerplexity(options: PerplexityEvalOptions): Promise<PerplexityRow[]> {
  const { model, onProgress } = options;
  const isPack = existsSync(join(model, 'manifest.json'));
  const checkpoint = isPack ? options.reference : model;
  const tokenizer = isPack ? await openTokenizer(fileSystem, model) : await checkpointTokenizer(model);
  if (tokenizer === null)
    throw new PotluckError('CHECKPOINT_INVALID', `${model}: has no tokenizer, so texts cannot be measured.`);
  const texts = await readTexts(options.texts, tokenizer, options);
  const measure = (reference: string | null, subjects: readonly PerplexitySubject[]) =>
    measurePerplexity(reference, subjects, texts, onProgress);
  const withReference = (subjects: readonly PerplexitySubject[]) =>
    checkpoint === null
      ? measure(null, subjects)
      : withTemporaryPack(checkpoint, 'bf16', folder => measure(folder, subjects));
  if (isPack) return withReference([subject('pack', model, options.activations, options.kvBits)]);
  if (options.weights === 'bf16') return withReference([]);
  const shown = new PackProgress();
  return withTemporaryPack(
    model,
    'w4',
    folder => {
      const levels = options.activations === null ? LEVELS : [options.activations];
      return withReference(levels.map(level => subject(`w4 ${level}`, folder, level, options.kvBits)));
    },
    'float32',
    {
      rounding: 'inputs',
      activations: 'mixed', // other levels need no other weights
      ...(options.calibrationFile === null ? {} : { calibrationFile: options.calibrationFile }),
      onProgress: progress => onProgress(shown.text(progress)),
    },
  );
}

const LEVELS: readonly ActivationLevels[] = ['a8', 'mixed', 'a4'];

const subject = (
  label: string,
  folder: string,
  activations: ActivationLevels | null,
  kvBits: ModelShape['kvBits'] | null,
): PerplexitySubject => ({ label, folder, activations, kvBits });
