import { PotluckError } from '../errors/errors.ts';
import type { GenerateRequest, Sampling } from './generate.ts';

const bad = (message: string): PotluckError => new PotluckError('BAD_REQUEST', message);

/** Throws BAD_REQUEST where a token id is not in the vocabulary. */
export function checkTokens(what: string, tokens: readonly number[], vocabulary: number): void {
  for (const id of tokens) {
    if (!Number.isInteger(id) || id < 0 || id >= vocabulary) {
      throw bad(`The ${what} has token id ${id}; the model has ids 0 to ${vocabulary - 1}.`);
    }
  }
}

type Range = readonly [name: keyof Sampling, least: number, most: number];
const RANGES: readonly Range[] = [
  ['temperature', 0, 1e6],
  ['topP', 0, 1],
  ['topK', 0, Number.MAX_SAFE_INTEGER],
  ['minP', 0, 1],
  ['seed', Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
  ['repetitionPenalty', Number.MIN_VALUE, Number.MAX_VALUE],
  ['presencePenalty', -Number.MAX_VALUE, Number.MAX_VALUE],
  ['frequencyPenalty', -Number.MAX_VALUE, Number.MAX_VALUE],
];

function checkSampling(sampling: Sampling): void {
  for (const [name, least, most] of RANGES) {
    const value = sampling[name];
    if (typeof value !== 'number' || !(value >= least && value <= most)) {
      throw bad(`${name} is ${String(value)}; it must be from ${least} to ${most}.`);
    }
  }
  if (!Number.isInteger(sampling.topK)) throw bad(`topK is ${sampling.topK}; it must be a whole number.`);
  if (!Number.isInteger(sampling.seed)) throw bad(`seed is ${sampling.seed}; it must be a whole number.`);
  for (const [id, bias] of sampling.logitBias) {
    if (!Number.isFinite(bias))
      throw bad(`The logit bias of token ${id} is ${bias}; it must be a finite number.`);
  }
}

/** Throws BAD_REQUEST where a request is malformed. Token ids are checked later, when the vocabulary is known. */
export function checkRequest(request: GenerateRequest): void {
  if (request.prompt.length === 0) throw bad('The prompt has no tokens. Give at least one.');
  if (!Number.isSafeInteger(request.maxTokens) || request.maxTokens < 0) {
    throw bad(`maxTokens is ${request.maxTokens}; it must be a whole number from 0.`);
  }
  checkSampling(request.sampling);
}

/** Throws BAD_REQUEST where positions do not rise or are not in a text of `length` tokens. */
export function checkPositions(at: readonly number[], length: number): void {
  let before = -1;
  for (const position of at) {
    if (!Number.isInteger(position) || position <= before || position >= length) {
      throw bad(
        `Position ${position} comes after ${before} in a text of ${length} tokens; positions must rise.`,
      );
    }
    before = position;
  }
}
