import * as v from 'valibot';
import type { GenerateRequest } from '../engine/generate.ts';
import { PotluckError } from '../errors/errors.ts';

/** Most tokens of a prompt and of an answer in a message. */
const MAX_TOKENS = 131_072;

const tokenId = v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(2 ** 31 - 1));
const tokens = v.pipe(v.array(tokenId), v.maxLength(MAX_TOKENS));
const finite = v.pipe(v.number(), v.finite());
const whole = v.pipe(v.number(), v.safeInteger());

/** A GenerateRequest as it travels: the logit bias as pairs. */
export const generateRequestSchema = v.object({
  prompt: tokens,
  generated: tokens,
  maxTokens: v.pipe(whole, v.minValue(0)),
  stopTokens: v.pipe(v.array(tokenId), v.maxLength(1024)),
  sampling: v.object({
    temperature: finite,
    topP: finite,
    topK: whole,
    minP: finite,
    seed: whole,
    repetitionPenalty: finite,
    presencePenalty: finite,
    frequencyPenalty: finite,
    logitBias: v.pipe(v.array(v.tuple([tokenId, finite])), v.maxLength(4096)),
  }),
});

export type GenerateRequestMessage = v.InferOutput<typeof generateRequestSchema>;

/** Most bytes of a request as JSON; a message has a little more around it. */
const MAX_REQUEST_BYTES = (1 << 20) - 1024;

/** The request as it travels. Throws BAD_REQUEST or CONTEXT_TOO_LONG where the other side would refuse it. */
export function checkedRequest(request: GenerateRequest): GenerateRequestMessage {
  const message = {
    prompt: [...request.prompt],
    generated: [...request.generated],
    maxTokens: request.maxTokens,
    stopTokens: [...request.stopTokens],
    sampling: { ...request.sampling, logitBias: [...request.sampling.logitBias] },
  };
  if (
    message.prompt.length + message.generated.length > MAX_TOKENS ||
    JSON.stringify(message).length > MAX_REQUEST_BYTES
  ) {
    throw new PotluckError(
      'CONTEXT_TOO_LONG',
      'The prompt is too long to be sent to the hub. Make it shorter.',
    );
  }
  const result = v.safeParse(generateRequestSchema, message, { abortEarly: true });
  if (result.success) return result.output;
  const issue = result.issues[0];
  throw new PotluckError('BAD_REQUEST', `${v.getDotPath(issue) ?? 'request'}: ${issue.message}`);
}

export const requestFromMessage = (message: GenerateRequestMessage): GenerateRequest => ({
  ...message,
  sampling: { ...message.sampling, logitBias: new Map(message.sampling.logitBias) },
});
