import { randomUUID } from 'node:crypto';
import { callPrefix, marksOf, THINK } from '../model/answer-format.ts';
import type { Chat, ChatMessage, TemplateVariables } from '../model/chat-template.ts';
import { TextStream } from '../model/text-stream.ts';
import { type AnswerShape, respond } from './answer.ts';
import { parseChatRequest } from './chat-request.ts';
import { type ChoiceEvent, type MadeCall, maxTokensOf } from './choices.ts';
import type { ApiHost, ApiModel } from './host.ts';
import { findModel } from './models.ts';
import { FieldError } from './openai-errors.ts';
import { samplingOf, samplingOfChoice, stopsOf, streamingOf } from './sampling-fields.ts';
import type { Tools } from './tool-fields.ts';

/** POST /v1/chat/completions. Rejects with PotluckError. */
export async function answerChat(
  host: ApiHost,
  body: Readonly<Record<string, unknown>>,
  gone: AbortSignal,
): Promise<Response> {
  const { fields, messages, variables, tools, maxTokens } = parseChatRequest(body);
  const streaming = streamingOf(fields);
  const model = await findModel(host, fields.model);
  refuseUnknownTools(tools, messages, model);
  const sampling = samplingOf(fields, model.vocabulary, () => host.randomSeed());
  const rendered = await model.renderChat(chatOf(messages, variables, tools, model));
  const thinking = model.answerFormat.thinks && endsInThoughts(rendered, model);
  const begun = callBegin(tools, model, thinking);
  const prompt = [...rendered, ...model.tokenizer.encode(begun, { special: true })];
  const most = maxTokensOf(prompt.length, maxTokens, model, 'messages');
  const { answerFormat } = model;
  const format = tools.names.length > 0 ? answerFormat : { ...answerFormat, tools: null };
  const parsing = { format, toolNames: tools.names, thinking, begun };
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
    parsing,
    mostCalls: tools.mostCalls,
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
    choice: (index, { text, reasoning, calls }, finish_reason) => ({
      index,
      message: {
        role: 'assistant',
        content: text === '' && calls.length > 0 ? null : text,
        refusal: null,
        ...(reasoning === '' ? {} : { reasoning_content: reasoning }),
        ...(calls.length === 0 ? {} : { tool_calls: calls.map(wholeCall) }),
      },
      logprobs: null,
      finish_reason,
    }),
    chunk: (event, first) => ({
      index: event.index,
      delta: { ...(first ? { role: 'assistant' } : {}), ...deltaOf(event, first) },
      logprobs: null,
      finish_reason: event.type === 'finish' ? event.reason : null,
    }),
  };
}

const wholeCall = ({ id, name, arguments: text }: MadeCall): object => ({
  id,
  type: 'function',
  function: { name, arguments: text },
});

function deltaOf(event: ChoiceEvent, first: boolean): object {
  if (event.type === 'text') return { content: event.text };
  if (event.type === 'reasoning') return { reasoning_content: event.text };
  if (event.type === 'call')
    return {
      ...(first ? { content: null } : {}),
      tool_calls: [{ index: event.call.place, ...wholeCall(event.call) }],
    };
  return first ? { content: '' } : {};
}

/** The chat as its template wants it; templates that look for tools in the system message get them there, as JSON text. */
function chatOf(
  messages: readonly ChatMessage[],
  variables: TemplateVariables,
  { tools }: Tools,
  { answerFormat }: ApiModel,
): Chat {
  if (tools.length === 0) return { messages, variables };
  if (!answerFormat.toolsInSystem) return { messages, variables, tools };
  const [first, ...rest] = messages;
  const [system, others] =
    first?.role === 'system' ? [first, rest] : [{ role: 'system' as const, content: '' }, messages];
  const functions = JSON.stringify(tools.map(tool => tool.function));
  return { messages: [{ ...system, tools: functions }, ...others], variables };
}

/** A template that knows no tools would leave them out without a word. */
function refuseUnknownTools({ tools }: Tools, messages: readonly ChatMessage[], model: ApiModel): void {
  if (model.answerFormat.tools !== null) return;
  const inMessage = messages.findIndex(({ role, tool_calls }) => role === 'tool' || tool_calls !== undefined);
  if (tools.length === 0 && inMessage < 0) return;
  throw new FieldError(
    'UNSUPPORTED_FIELD',
    tools.length > 0 ? 'tools' : `messages[${inMessage}]`,
    `The chat template of ${model.id} knows no tools, or writes calls in a form that is not known here. Leave them out, or use another model.`,
  );
}

/** What an answer that has to call a tool begins with; '' where it need not. */
function callBegin({ must }: Tools, { answerFormat }: ApiModel, thinking: boolean): string {
  if (must === null || answerFormat.tools === null) return '';
  const begin = callPrefix(answerFormat.tools, must === 'any' ? null : must.name);
  return thinking ? `\n${THINK.close}\n\n${begin}` : begin;
}

/** Tokens at the end of a prompt that may hold its last mark. */
const TAIL_TOKENS = 16;

/** Some templates write the <think> that an answer begins with. */
function endsInThoughts(prompt: readonly number[], { tokenizer, answerFormat }: ApiModel): boolean {
  const text = new TextStream(tokenizer, {
    stop: [],
    startsText: false,
    shownControls: marksOf(answerFormat),
  });
  const tail = prompt.slice(-TAIL_TOKENS).map(id => text.push(id));
  return tail.join('').trimEnd().endsWith(THINK.open);
}
