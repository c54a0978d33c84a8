import * as v from 'valibot';
import type { Sampling } from '../engine/generate.ts';
import { FieldError } from './openai-errors.ts';
import { anyObject, flag, numberFrom, only, parseFields, recordOf, wholeFrom } from './request-fields.ts';

const MAX_STOPS = 16;
const MAX_STOP_LENGTH = 256;
const MAX_BIASES = 1024;

const stopString = v.pipe(
  v.string(`a string, or a list of up to ${MAX_STOPS} strings`),
  v.minLength(1, 'not empty'),
  v.maxLength(MAX_STOP_LENGTH, `of at most ${MAX_STOP_LENGTH} characters`),
  v.check(text => !/\p{Surrogate}/u.test(text), 'valid Unicode'),
);
const stopList = v.pipe(v.array(stopString), v.maxLength(MAX_STOPS, `a list of up to ${MAX_STOPS} strings`));

/** Fields that chats and completions share. */
export const generationEntries = {
  model: v.string('the name of a model'),
  temperature: numberFrom(0, 2),
  top_p: numberFrom(0, 1),
  top_k: wholeFrom(0, 1_000_000),
  min_p: numberFrom(0, 1),
  seed: wholeFrom(Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER),
  repetition_penalty: numberFrom(0.01, 10),
  presence_penalty: numberFrom(-2, 2),
  frequency_penalty: numberFrom(-2, 2),
  logit_bias: v.nullish(
    v.pipe(
      recordOf(
        /^\d{1,9}$/,
        v.pipe(
          v.number('a number from -100 to 100'),
          v.minValue(-100, 'a number from -100 to 100'),
          v.maxValue(100, 'a number from -100 to 100'),
        ),
        'an object of token ids and numbers',
      ),
      v.maxEntries(MAX_BIASES, `an object of at most ${MAX_BIASES} token ids`),
    ),
  ),
  stop: v.nullish(v.lazy(input => (Array.isArray(input) ? stopList : stopString))),
  max_tokens: wholeFrom(1, Number.MAX_SAFE_INTEGER),
  n: wholeFrom(1, 8),
  stream: flag(),
  stream_options: v.nullish(anyObject),
};

type GenerationFields = v.InferOutput<v.ObjectSchema<typeof generationEntries, undefined>>;

/** What to draw with; OpenAI's defaults where a field is absent. Throws FieldError. */
export function samplingOf(fields: GenerationFields, vocabulary: number, randomSeed: () => number): Sampling {
  const logitBias = new Map<number, number>();
  for (const [key, bias] of Object.entries(fields.logit_bias ?? {})) {
    const id = Number(key);
    if (id >= vocabulary) {
      const message = `logit_bias names token ${id}; the model has ids 0 to ${vocabulary - 1}.`;
      throw new FieldError('BAD_REQUEST', 'logit_bias', message);
    }
    logitBias.set(id, bias);
  }
  return {
    temperature: fields.temperature ?? 1,
    topP: fields.top_p ?? 1,
    topK: fields.top_k ?? 0,
    minP: fields.min_p ?? 0,
    seed: fields.seed ?? randomSeed(),
    repetitionPenalty: fields.repetition_penalty ?? 1,
    presencePenalty: fields.presence_penalty ?? 0,
    frequencyPenalty: fields.frequency_penalty ?? 0,
    logitBias,
  };
}

/** The sampling of choice `index`: each has its own seed, the first the one that was asked for. */
export function samplingOfChoice(sampling: Sampling, index: number): Sampling {
  if (index === 0) return sampling;
  const seed = sampling.seed + index;
  return { ...sampling, seed: Number.isSafeInteger(seed) ? seed : sampling.seed - index };
}

export function stopsOf(fields: GenerationFields): readonly string[] {
  if (typeof fields.stop === 'string') return [fields.stop];
  return fields.stop ?? [];
}

const streamSchema = v.object({ include_usage: flag() });

/** Throws FieldError where stream_options come without stream, or with what is not supported. */
export function streamingOf(fields: GenerationFields): { stream: boolean; includeUsage: boolean } {
  const stream = fields.stream ?? false;
  if (!stream && fields.stream_options != null) {
    throw new FieldError(
      'BAD_REQUEST',
      'stream_options',
      'stream_options are for requests with "stream": true.',
    );
  }
  const neutral = { include_obfuscation: only(false) };
  const options = parseFields(fields.stream_options ?? {}, streamSchema, neutral, 'stream_options');
  return { stream, includeUsage: options.include_usage ?? false };
}
