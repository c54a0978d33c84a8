import * as v from 'valibot';
import type { ChatMessage, TemplateVariables } from '../model/chat-template.ts';
import { FieldError } from './openai-errors.ts';
import { anyObject, anyValue, emptyList, only, parseFields, recordOf, wholeFrom } from './request-fields.ts';
import { generationEntries } from './sampling-fields.ts';
import { type Tools, toolCallsOf, toolEntries, toolsOf } from './tool-fields.ts';

const MAX_MESSAGES = 4096;
const MAX_VARIABLES = 16;

const scalar = v.union([v.string(), v.number(), v.boolean()], 'a string, number or boolean');
const chatSchema = v.object({
  ...generationEntries,
  ...toolEntries,
  messages: v.pipe(
    v.array(anyObject, 'a list of messages'),
    v.minLength(1, 'a list of at least one message'),
    v.maxLength(MAX_MESSAGES, `a list of at most ${MAX_MESSAGES} messages`),
  ),
  max_completion_tokens: wholeFrom(1, Number.MAX_SAFE_INTEGER),
  chat_template_kwargs: v.nullish(
    v.pipe(
      recordOf(/^[a-z_]\w{0,63}$/i, scalar, 'an object of variable names'),
      v.maxEntries(MAX_VARIABLES, `an object of at most ${MAX_VARIABLES} variables`),
    ),
  ),
});

/** Fields of OpenAI's chat that Potluck does not have, and the values of theirs that ask for nothing. */
const neutralChatFields = {
  audio: only(null),
  function_call: only('none', 'auto'),
  functions: emptyList,
  logprobs: only(false),
  metadata: anyValue,
  modalities: (value: unknown) => Array.isArray(value) && value.length === 1 && value[0] === 'text',
  moderation: only(null),
  prediction: only(null),
  prompt_cache_key: anyValue,
  prompt_cache_options: only(null),
  prompt_cache_retention: only(null),
  reasoning_effort: only(null),
  response_format: (value: unknown) => (value as { type?: unknown }).type === 'text',
  safety_identifier: anyValue,
  service_tier: only('auto', 'default'),
  store: only(false),
  top_logprobs: only(null),
  user: anyValue,
  verbosity: only('medium'),
  web_search_options: only(null),
};

/** What clients send back of an earlier answer. */
const neutralMessageFields = {
  annotations: emptyList,
  audio: only(null),
  function_call: only(null),
  name: only(null),
  refusal: only(null),
};

const messageSchema = v.object({
  role: v.string('a role'),
  content: v.nullish(v.unknown()),
});
const assistantSchema = v.object({
  ...messageSchema.entries,
  tool_calls: v.nullish(v.unknown()),
  reasoning_content: v.nullish(v.string('a string')),
});
const toolSchema = v.object({
  ...messageSchema.entries,
  tool_call_id: v.pipe(v.string('a string'), v.maxLength(256, 'of at most 256 characters')),
  name: v.nullish(v.pipe(v.string('a string'), v.maxLength(256, 'of at most 256 characters'))),
});

export interface ChatRequest {
  readonly fields: v.InferOutput<typeof chatSchema>;
  readonly messages: readonly ChatMessage[];
  readonly variables: TemplateVariables;
  readonly tools: Tools;
  /** Most tokens of an answer, or null for what the context allows. */
  readonly maxTokens: number | null;
}

/** Throws FieldError: BAD_REQUEST or UNSUPPORTED_FIELD. */
export function parseChatRequest(body: Readonly<Record<string, unknown>>): ChatRequest {
  const fields = parseFields(body, chatSchema, neutralChatFields);
  const { max_tokens: old, max_completion_tokens: limit } = fields;
  if (old != null && limit != null && old !== limit) {
    throw new FieldError(
      'BAD_REQUEST',
      'max_tokens',
      'max_tokens and max_completion_tokens mean the same and differ here. Send one of them.',
    );
  }
  return {
    fields,
    messages: fields.messages.map(messageAt),
    variables: fields.chat_template_kwargs ?? {},
    tools: toolsOf(fields),
    maxTokens: limit ?? old ?? null,
  };
}

const ROLES: Readonly<Record<string, ChatMessage['role']>> = {
  system: 'system',
  // OpenAI's newer name of the same; templates know the older one.
  developer: 'system',
  user: 'user',
};

function messageAt(message: Readonly<Record<string, unknown>>, index: number): ChatMessage {
  const path = `messages[${index}]`;
  if (message.role === 'assistant') return assistantMessage(message, path);
  if (message.role === 'tool') return toolMessage(message, path);
  const { role, content } = parseFields(message, messageSchema, neutralMessageFields, path);
  if (!Object.hasOwn(ROLES, role)) {
    throw new FieldError(
      'UNSUPPORTED_FIELD',
      `${path}.role`,
      `The role of ${path} is not supported. Use system, developer, user, assistant or tool.`,
    );
  }
  return { role: ROLES[role]!, content: contentOf(content, `${path}.content`) };
}

/** What the model said; its content may be missing where it called tools. */
function assistantMessage(message: Readonly<Record<string, unknown>>, path: string): ChatMessage {
  const fields = parseFields(message, assistantSchema, neutralMessageFields, path);
  const calls = fields.tool_calls == null ? [] : toolCallsOf(fields.tool_calls, `${path}.tool_calls`);
  const content = fields.content ?? (calls.length > 0 ? '' : fields.content);
  return {
    role: 'assistant',
    content: contentOf(content, `${path}.content`),
    ...(calls.length === 0 ? {} : { tool_calls: calls }),
    ...(fields.reasoning_content == null ? {} : { reasoning_content: fields.reasoning_content }),
  };
}

/** The result of a call. */
function toolMessage(message: Readonly<Record<string, unknown>>, path: string): ChatMessage {
  const { content, tool_call_id, name } = parseFields(message, toolSchema, {}, path);
  return {
    role: 'tool',
    content: contentOf(content, `${path}.content`),
    tool_call_id,
    ...(name == null ? {} : { name }),
  };
}

/** Text, or text parts, which become lines. */
function contentOf(content: unknown, path: string): string {
  if (typeof content === 'string') return content;
  if (!Array.isArray(content)) {
    throw new FieldError('BAD_REQUEST', path, `The field ${path} must be a string or a list of text parts.`);
  }
  return content.map((part, index) => partOf(part, `${path}[${index}]`)).join('\n');
}

const partSchema = v.object({ type: v.literal('text', '"text"'), text: v.string('a string') });

function partOf(part: unknown, path: string): string {
  if (!v.is(anyObject, part) || part.type !== 'text') {
    throw new FieldError('UNSUPPORTED_FIELD', path, `${path} is not a text part. Potluck answers text only.`);
  }
  return parseFields(part, partSchema, {}, path).text;
}
