import * as v from 'valibot';
import type { ApiModel } from './host.ts';
import { FieldError } from './openai-errors.ts';
import { anyValue, only, parseFields } from './request-fields.ts';
import { generationEntries } from './sampling-fields.ts';

const MAX_PROMPTS = 32;
/** Most answers of one request, over all its prompts. */
const MAX_CHOICES = 32;

const completionSchema = v.object({
  ...generationEntries,
  prompt: v.nullish(v.unknown()),
  best_of: v.nullish(v.unknown()),
});

const neutralFields = {
  echo: only(false),
  logprobs: only(null),
  metadata: anyValue,
  store: only(false),
  suffix: only(''),
  user: anyValue,
};

type Prompt = string | readonly number[];

export interface CompletionRequest {
  readonly fields: v.InferOutput<typeof completionSchema>;
  readonly prompts: readonly Prompt[];
}

/** Throws FieldError: BAD_REQUEST or UNSUPPORTED_FIELD. */
export function parseCompletionRequest(body: Readonly<Record<string, unknown>>): CompletionRequest {
  const fields = parseFields(body, completionSchema, neutralFields);
  const n = fields.n ?? 1;
  if (fields.best_of != null && fields.best_of !== n) {
    throw new FieldError(
      'UNSUPPORTED_FIELD',
      'best_of',
      'best_of is not supported other than equal to n. Leave it out.',
    );
  }
  const prompts = promptsOf(fields.prompt);
  if (prompts.length * n > MAX_CHOICES) {
    throw new FieldError('BAD_REQUEST', 'n', `A request may ask for ${MAX_CHOICES} answers at most.`);
  }
  return { fields, prompts };
}

const isTokens = (value: unknown): value is number[] =>
  Array.isArray(value) && value.length > 0 && value.every(id => Number.isSafeInteger(id) && id >= 0);

/** A string, a list of strings, a list of token ids, or a list of those. */
function promptsOf(prompt: unknown): readonly Prompt[] {
  if (typeof prompt === 'string') return [prompt];
  if (isTokens(prompt)) return [prompt];
  const isPrompt = (one: unknown): one is Prompt => typeof one === 'string' || isTokens(one);
  if (Array.isArray(prompt) && prompt.length > 0 && prompt.length <= MAX_PROMPTS && prompt.every(isPrompt)) {
    return prompt;
  }
  throw new FieldError(
    'BAD_REQUEST',
    'prompt',
    `The field prompt must be a string, a list of token ids, or a list of 1 to ${MAX_PROMPTS} of those.`,
  );
}

/** Ids of a prompt. In a text, what spells a control token stays text. Throws FieldError or CONTEXT_TOO_LONG. */
export function promptTokens(prompt: Prompt, model: ApiModel): readonly number[] {
  if (typeof prompt === 'string') {
    const ids = model.tokenizer.encode(prompt, { special: false, limit: model.context });
    const whole = model.beginToken === null ? ids : [model.beginToken, ...ids];
    if (whole.length > 0) return whole;
    throw new FieldError(
      'BAD_REQUEST',
      'prompt',
      'The prompt is empty and the model has no begin token. Send some text.',
    );
  }
  const unknown = prompt.find(id => id >= model.vocabulary);
  if (unknown === undefined) return prompt;
  const message = `The prompt has token ${unknown}; the model has ids 0 to ${model.vocabulary - 1}.`;
  throw new FieldError('BAD_REQUEST', 'prompt', message);
}
