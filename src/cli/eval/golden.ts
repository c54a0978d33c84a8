import * as v from 'valibot';
import { PotluckError } from '../../errors/errors.ts';
import type { RopePrecision } from '../../model/build-pack.ts';
import type { WeightFormat } from '../../pack/manifest.ts';
import { evaluateLogits, generate } from '../api-client.ts';
import { withEmulation } from '../emulate/with-emulation.ts';
import { besideCheckpoint } from '../model-path.ts';
import { readJson } from '../pack-checkpoint.ts';
import { argmax, equalTokens } from './compare-tokens.ts';
import { withTemporaryPack } from './temporary-pack.ts';

/** Largest error of a logit, bf16 weights, that counts as the same model. */
const MOST_ERROR = 2e-2;

const tokens = v.pipe(v.array(v.pipe(v.number(), v.integer(), v.minValue(0))), v.minLength(1));
const goldenSchema = v.object({
  arch: v.string(),
  ids: tokens,
  /** Logits at positions 7, 15, 23 ...; [floor(ids / 8), vocabulary]. */
  logits_every_8: v.array(v.array(v.number())),
  /** Likeliest next token at every position; [ids]. */
  argmax: tokens,
  /** Greedy continuation of ids. */
  greedy: tokens,
});
type Golden = v.InferOutput<typeof goldenSchema>;

export interface GoldenReport {
  readonly model: string;
  readonly weights: WeightFormat;
  readonly devices: number;
  /** RoPE frequencies that the reference agrees with. */
  readonly rope: RopePrecision;
  readonly largestError: number;
  /** Share of positions with the same likeliest token. */
  readonly equalArgmax: number;
  readonly greedyEqual: boolean;
  /** Null where this run only reports (w4). */
  readonly passed: boolean | null;
}

/**
 * Compares a checkpoint, served by emulated devices, with the reference values beside it (golden.json). A reference
 * whose model was cast to bfloat16 as a whole has rounded RoPE frequencies: where float32 does not agree, those are
 * tried, and the report says which was used.
 */
export async function evalGolden(
  checkpoint: string,
  weights: WeightFormat,
  devices: number,
  signal: AbortSignal,
): Promise<GoldenReport> {
  const golden = await readGolden(besideCheckpoint(checkpoint, 'golden.json'));
  const measure = (rope: RopePrecision) =>
    withTemporaryPack(
      checkpoint,
      weights,
      model =>
        withEmulation({ devices, model }, signal, async emulation =>
          measureGolden(golden, await emulation.hubUrl(), { weights, devices, rope }),
        ),
      rope,
    );
  const plain = await measure('float32');
  if (plain.passed !== false) return plain;
  const rounded = await measure('bfloat16');
  return rounded.largestError < plain.largestError ? rounded : plain;
}

async function measureGolden(
  golden: Golden,
  url: string,
  run: Pick<GoldenReport, 'weights' | 'devices' | 'rope'>,
): Promise<GoldenReport> {
  const rows = await evaluateLogits(url, golden.ids, [...golden.ids.keys()]);
  const continued = await generate(url, golden.ids, golden.greedy.length, []);
  const measured = compareGolden(golden, rows, continued.tokens);
  const passed = measured.largestError <= MOST_ERROR && measured.greedyEqual;
  return { model: golden.arch, ...run, ...measured, passed: run.weights === 'bf16' ? passed : null };
}

async function readGolden(path: string): Promise<Golden> {
  const json = await readJson(path);
  if (json === null)
    throw new PotluckError('CHECKPOINT_INVALID', `${path} is missing: give a folder that has one`);
  const parsed = v.safeParse(goldenSchema, json);
  if (!parsed.success) {
    throw new PotluckError('CHECKPOINT_INVALID', `${path}: ${parsed.issues[0].message}`);
  }
  const { ids, logits_every_8, argmax: likeliest } = parsed.output;
  if (logits_every_8.length !== Math.floor(ids.length / 8) || likeliest.length !== ids.length) {
    throw new PotluckError('CHECKPOINT_INVALID', `${path}: the lengths of its lists contradict each other`);
  }
  return parsed.output;
}

/** `rows`: logits at every position; [ids][vocabulary]. */
export function compareGolden(
  golden: Golden,
  rows: readonly Float32Array[],
  greedy: readonly number[],
): Pick<GoldenReport, 'largestError' | 'equalArgmax' | 'greedyEqual'> {
  let largestError = 0;
  for (const [i, expected] of golden.logits_every_8.entries()) {
    const row = rows[i * 8 + 7];
    if (row === undefined || row.length !== expected.length) {
      throw new PotluckError(
        'PROTOCOL',
        `${row?.length ?? 0} logits came for a vocabulary of ${expected.length}`,
      );
    }
    for (const [id, value] of expected.entries()) {
      const error = Math.abs(row[id]! - value);
      // A logit that is not a number is as wrong as can be.
      if (!(error <= largestError)) largestError = Number.isNaN(error) ? Number.POSITIVE_INFINITY : error;
    }
  }
  const equal = rows.filter((row, position) => argmax(row) === golden.argmax[position]).length;
  return { largestError, equalArgmax: equal / rows.length, greedyEqual: equalTokens(greedy, golden.greedy) };
}
