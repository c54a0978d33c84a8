import { randomUUID } from 'node:crypto';
import { type AnswerShape, respond } from './answer.ts';
import { maxTokensOf } from './choices.ts';
import { parseCompletionRequest, promptTokens } from './completion-request.ts';
import type { ApiHost } from './host.ts';
import { findModel } from './models.ts';
import { samplingOf, samplingOfChoice, stopsOf, streamingOf } from './sampling-fields.ts';

/** POST /v1/completions. Rejects with PotluckError. */
export async function answerCompletion(
  host: ApiHost,
  body: Readonly<Record<string, unknown>>,
  gone: AbortSignal,
): Promise<Response> {
  const { fields, prompts } = parseCompletionRequest(body);
  const streaming = streamingOf(fields);
  const model = await findModel(host, fields.model);
  const sampling = samplingOf(fields, model.vocabulary, () => host.randomSeed());
  const tokens = prompts.map(prompt => promptTokens(prompt, model));
  const n = fields.n ?? 1;
  const choices = tokens.flatMap((prompt, place) => {
    const maxTokens = maxTokensOf(prompt.length, fields.max_tokens ?? null, model, 'prompt');
    return Array.from({ length: n }, (_, i) => ({
      index: place * n + i,
      request: {
        prompt,
        generated: [],
        maxTokens,
        stopTokens: model.stopTokens,
        sampling: samplingOfChoice(sampling, i),
      },
      stop: stopsOf(fields),
      startsText: false,
      parsing: null,
      mostCalls: Number.POSITIVE_INFINITY,
    }));
  });
  const promptSum = tokens.reduce((sum, prompt) => sum + prompt.length, 0);
  const shape = completionShape(host, model.id);
  return respond({ host, model, choices, promptTokens: promptSum, shape, ...streaming, gone });
}

function completionShape(host: ApiHost, model: string): AnswerShape {
  const choice = (index: number, text: string, finish_reason: string | null) => ({
    index,
    text,
    logprobs: null,
    finish_reason,
  });
  return {
    head: {
      id: `cmpl-${randomUUID()}`,
      created: Math.floor(host.now() / 1000),
      model,
      system_fingerprint: `potluck-${host.version}`,
    },
    object: 'text_completion',
    chunkObject: 'text_completion',
    choice: (index, { text }, reason) => choice(index, text, reason),
    chunk: event =>
      choice(
        event.index,
        event.type === 'text' ? event.text : '',
        event.type === 'finish' ? event.reason : null,
      ),
  };
}
