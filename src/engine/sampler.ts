import { PotluckError } from '../errors/errors.ts';
import type { LogitMath } from '../kernels/logit-math.ts';
import { Candidates } from './candidates.ts';
import type { Sampling } from './generate.ts';
import type { LogitRow } from './pass-runner.ts';
import { uniform } from './random.ts';
import { needsHistory, type TokenHistory } from './token-history.ts';

/**
 * Turns a row of logits into a token. Order: logit bias, repetition penalty (prompt and output; a logit above 0 is divided, others
 * multiplied, as transformers and llama.cpp do), presence and frequency penalties (output only, as OpenAI defines them);
 * then the greatest logit (lowest id of equal ones) at temperature 0, else temperature, top_k, top_p, min_p and one draw with
 * the number of (seed, counter). One sampler serves many sequences: it keeps scratch memory only.
 */
export class Sampler {
  /** Copy of a row where bias or penalties change it; [vocabulary]. */
  #copy = new Float32Array(0);
  readonly #math: LogitMath;
  readonly #candidates: Candidates;

  constructor(math: LogitMath) {
    this.#math = math;
    this.#candidates = new Candidates(math);
  }

  /**
   * The token after `counter` generated ones. `row` is not changed. `history` may be null where needsHistory() is false.
   * Throws KERNEL_FAILED where a logit is NaN, or the greatest is not finite.
   */
  sample(row: LogitRow, sampling: Sampling, history: TokenHistory | null, counter: number): number {
    const logits = this.#adjusted(row, sampling, history);
    const best = greatest(logits, this.#math);
    const temperature = sampling.temperature;
    if (temperature === 0) return best;
    const max = logits[best]!;
    const candidates = this.#candidates;
    const filters = sampling.topK > 0 || sampling.topP < 1 || sampling.minP > 0;
    if (filters) candidates.gather(logits, max, temperature);
    else candidates.takeAll(logits);
    if (sampling.topK > 0) candidates.keepTop(sampling.topK);
    candidates.weigh(max, temperature);
    if (sampling.topP < 1) candidates.keepShare(sampling.topP, max, temperature);
    if (sampling.minP > 0) candidates.keepWeight(sampling.minP);
    return candidates.draw(uniform(sampling.seed, counter));
  }

  /** The row itself, or a copy with bias and penalties. */
  #adjusted(row: LogitRow, sampling: Sampling, history: TokenHistory | null): Float32Array {
    const penalties = needsHistory(sampling);
    if (sampling.logitBias.size === 0 && !penalties) return row;
    if (this.#copy.length !== row.length) this.#copy = new Float32Array(row.length);
    const logits = this.#copy;
    logits.set(row);
    for (const [id, bias] of sampling.logitBias) logits[id] = logits[id]! + bias;
    if (penalties) {
      if (history === null)
        throw new PotluckError('INTERNAL', 'Penalties were asked for without a token history.');
      penalize(logits, sampling, history);
    }
    return logits;
  }
}

function penalize(logits: Float32Array, sampling: Sampling, history: TokenHistory): void {
  const { repetitionPenalty, presencePenalty, frequencyPenalty } = sampling;
  const { ids, outputs } = history;
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i]!;
    const count = outputs[i]!;
    let logit = logits[id]!;
    logit = logit > 0 ? logit / repetitionPenalty : logit * repetitionPenalty;
    if (count > 0) logit -= presencePenalty + count * frequencyPenalty;
    logits[id] = logit;
  }
}

/** Id of the greatest logit, the lowest of equal ones. Throws KERNEL_FAILED. */
function greatest(logits: Float32Array, math: LogitMath): number {
  const id = math.greatest(logits);
  const logit = logits[id] ?? Number.NEGATIVE_INFINITY;
  if (Number.isFinite(logit)) return id;
  const what = Number.isNaN(logit)
    ? `The logit of token ${id} is not a number.`
    : `The greatest of ${logits.length} logits is ${logit}.`;
  throw new PotluckError('KERNEL_FAILED', `${what} Check the pack with its hashes.`);
}
