import { randomUUID } from 'node:crypto';
import { type AnswerShape, respond } from './answer.ts';
import { parseChatRequest } from './chat-request.ts';
import { maxTokensOf } from './choices.ts';
import type { ApiHost } from './host.ts';
import { findModel } from './models.ts';
import { samplingOf, samplingOfChoice, stopsOf, streamingOf } from './sampling-fields.ts';

/** POST /v1/chat/completions. Rejects with PotluckError. */
export async function answerChat(
  host: ApiHost,
  body: Readonly<Record<string, unknown>>,
  gone: AbortSignal,
): Promise<Response> {
  const { fields, messages, variables, maxTokens } = parseChatRequest(body);
  const streaming = streamingOf(fields);
  const model = await findModel(host, fields.model);
  const sampling = samplingOf(fields, model.vocabulary, () => host.randomSeed());
  const prompt = await model.renderChat({ messages, variables });
  const most = maxTokensOf(prompt.length, maxTokens, model, 'messages');
  const choices = Array.from({ length: fields.n ?? 1 }, (_, index) => ({
    index,
    request: {
      prompt,
      generated: [],
      maxTokens: most,
      stopTokens: model.stopTokens,
      sampling: samplingOfChoice(sampling, index),
    },
    stop: stopsOf(fields),
    startsText: true,
  }));
  const shape = chatShape(host, model.id);
  return respond({ host, model, choices, promptTokens: prompt.length, shape, ...streaming, gone });
}

function chatShape(host: ApiHost, model: string): AnswerShape {
  return {
    head: {
      id: `chatcmpl-${randomUUID()}`,
      created: Math.floor(host.now() / 1000),
      model,
      system_fingerprint: `potluck-${host.version}`,
    },
    object: 'chat.completion',
    chunkObject: 'chat.completion.chunk',
    choice: (index, content, finish_reason) => ({
      index,
      message: { role: 'assistant', content, refusal: null },
      logprobs: null,
      finish_reason,
    }),
    chunk(event, first) {
      const role = first ? { role: 'assistant' } : {};
      const content = event.type === 'text' ? { content: event.text } : first ? { content: '' } : {};
      return {
        index: event.index,
        delta: { ...role, ...content },
        logprobs: null,
        finish_reason: event.type === 'finish' ? event.reason : null,
      };
    },
  };
}
