import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { PotluckError } from '../../errors/errors.ts';
import type { Tokenizer } from '../../model/tokenizer.ts';
import type { WeightFormat } from '../../pack/manifest.ts';
import { evaluateLogits, generate } from '../api-client.ts';
import { withEmulation } from '../emulate/with-emulation.ts';
import { besideCheckpoint } from '../model-path.ts';
import { checkpointTokenizer, readJson } from '../pack-checkpoint.ts';
import { argmax, equalTokens } from './compare-tokens.ts';
import { perplexity } from './perplexity.ts';
import { withTemporaryPack } from './temporary-pack.ts';

/** Largest relative difference of a perplexity, bf16 weights, that counts as the same model. */
const MOST_DIFFERENCE = 0.005;
/** How the reference continuations were taken: they end with a stop token, or after 64 tokens. */
const STOP_TOKENS = [2, 0];
const MOST_TOKENS = 64;

const referenceSchema = v.object({
  cases: v.array(
    v.object({
      prompt: v.string(),
      ids: v.array(v.number()),
      /** [token id, logit] of the likeliest tokens after ids. */
      top20: v.array(v.tuple([v.number(), v.number()])),
      greedy: v.array(v.number()),
    }),
  ),
  perplexity: v.record(v.string(), v.object({ windows: v.number(), window: v.number(), fp32: v.number() })),
});
type Reference = v.InferOutput<typeof referenceSchema>;

export interface ReferenceReport {
  readonly weights: WeightFormat;
  readonly devices: number;
  readonly largestLogitError: number;
  /** Prompts with the same likeliest token; with the same continuation; all. */
  readonly equalArgmax: number;
  readonly greedyEqual: number;
  readonly prompts: number;
  readonly perplexity: readonly PerplexityReport[];
  /** Texts that were not there. */
  readonly skipped: readonly string[];
  /** Null where this run only reports (w4). */
  readonly passed: boolean | null;
}

interface PerplexityReport {
  readonly text: string;
  readonly expected: number;
  readonly measured: number;
  /** Relative; 0.01 is one per cent worse. */
  readonly difference: number;
}

export interface ReferenceOptions {
  readonly checkpoint: string;
  readonly weights: WeightFormat;
  readonly devices: number;
  readonly texts: string;
  readonly onProgress: (line: string) => void;
}

/** Compares a checkpoint, served by emulated devices, with the reference values beside it (reference.json). */
export async function evalReference(
  options: ReferenceOptions,
  signal: AbortSignal,
): Promise<ReferenceReport> {
  const { checkpoint, weights, devices, onProgress } = options;
  const reference = await readReference(besideCheckpoint(checkpoint, 'reference.json'));
  const tokenizer = await checkpointTokenizer(checkpoint);
  return withTemporaryPack(checkpoint, weights, async model =>
    withEmulation({ devices, model }, signal, async emulation => {
      const url = await emulation.hubUrl();
      onProgress(`${reference.cases.length} prompts ...`);
      const prompts = await comparePrompts(url, reference);
      const { measured, skipped } = await measureTexts(url, reference, tokenizer, options);
      const near = measured.every(({ difference }) => Math.abs(difference) <= MOST_DIFFERENCE);
      const passed = near && prompts.greedyEqual === prompts.prompts;
      return {
        weights,
        devices,
        ...prompts,
        perplexity: measured,
        skipped,
        passed: weights === 'bf16' ? passed : null,
      };
    }),
  );
}

async function readReference(path: string): Promise<Reference> {
  const json = await readJson(path);
  if (json === null)
    throw new PotluckError('CHECKPOINT_INVALID', `${path} is missing: give a folder that has one`);
  const parsed = v.safeParse(referenceSchema, json);
  if (parsed.success) return parsed.output;
  throw new PotluckError('CHECKPOINT_INVALID', `${path}: ${parsed.issues[0].message}`);
}

async function comparePrompts(
  url: string,
  { cases }: Reference,
): Promise<Pick<ReferenceReport, 'largestLogitError' | 'equalArgmax' | 'greedyEqual' | 'prompts'>> {
  let largestLogitError = 0;
  let equalArgmax = 0;
  let greedyEqual = 0;
  for (const { ids, top20, greedy } of cases) {
    const [row] = await evaluateLogits(url, ids, [ids.length - 1]);
    const errors = top20.map(([id, logit]) => Math.abs(row![id]! - logit));
    largestLogitError = Math.max(largestLogitError, ...errors);
    if (argmax(row!) === top20[0]?.[0]) equalArgmax++;
    const answer = await generate(url, ids, MOST_TOKENS, STOP_TOKENS);
    const stops = STOP_TOKENS.includes(greedy.at(-1) ?? -1);
    const expected = stops ? greedy.slice(0, -1) : greedy;
    if (equalTokens(answer.tokens, expected) && answer.reason === (stops ? 'stop' : 'length')) greedyEqual++;
  }
  return { largestLogitError, equalArgmax, greedyEqual, prompts: cases.length };
}

async function measureTexts(
  url: string,
  reference: Reference,
  tokenizer: Tokenizer | null,
  { texts, onProgress }: ReferenceOptions,
): Promise<{ measured: PerplexityReport[]; skipped: string[] }> {
  const measured: PerplexityReport[] = [];
  const skipped: string[] = [];
  for (const [name, { windows, window, fp32 }] of Object.entries(reference.perplexity)) {
    const text = await readText(join(texts, name));
    if (text === null || tokenizer === null) {
      onProgress(
        `Skipped: ${text === null ? `${join(texts, name)} is absent` : 'the checkpoint has no tokenizer'}`,
      );
      skipped.push(name);
      continue;
    }
    onProgress(`Perplexity of ${name} ...`);
    const value = await perplexity(url, tokenizer, text, { windows, window }, done => {
      if (done % 10 === 0) onProgress(`  ${done} of ${windows} windows`);
    });
    measured.push({ text: name, expected: fp32, measured: value, difference: value / fp32 - 1 });
  }
  return { measured, skipped };
}

async function readText(path: string): Promise<string | null> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw new PotluckError('DISK_READ', `${path} cannot be read: ${(error as Error).message}`, {
      cause: error,
    });
  }
}
