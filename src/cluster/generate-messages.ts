import * as v from 'valibot';
import type { GenerateRequest } from '../engine/generate.ts';

/** Most tokens of a prompt and of an answer in a message. */
export const MAX_TOKENS = 131_072;

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

export const requestToMessage = (request: GenerateRequest): GenerateRequestMessage => ({
  prompt: [...request.prompt],
  generated: [...request.generated],
  maxTokens: request.maxTokens,
  stopTokens: [...request.stopTokens],
  sampling: { ...request.sampling, logitBias: [...request.sampling.logitBias] },
});

export const requestFromMessage = (message: GenerateRequestMessage): GenerateRequest => ({
  ...message,
  sampling: { ...message.sampling, logitBias: new Map(message.sampling.logitBias) },
});
