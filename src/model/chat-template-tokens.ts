import type { Chat, ChatTemplate } from './chat-template.ts';
import { chooseBreaker } from './control-text.ts';
import type { Tokenizer } from './tokenizer.ts';
import { withParsedArguments } from './tool-arguments.ts';

export interface ChatTokens {
  readonly ids: number[];
  /** True where the model has no template: worth telling the user once. */
  readonly fallback: boolean;
}

export interface ChatTokensOptions {
  readonly tokenizer: Tokenizer;
  readonly template: ChatTemplate;
  /** Put before a chat without a template; a template writes its own. */
  readonly beginToken: number | null;
  /** Most tokens of a prompt. */
  readonly context: number;
}

/**
 * Token ids of a chat with the generation prompt. Control tokens come from the template alone: where a message, a tool or a
 * variable spells one, it stays text. Rejects with TEMPLATE_FAILED, BUSY, STOPPED or CONTEXT_TOO_LONG.
 */
export async function encodeChat(options: ChatTokensOptions, asked: Chat): Promise<ChatTokens> {
  const { tokenizer, template, beginToken, context: limit } = options;
  // Before anything is looked for in the texts: escapes of JSON may spell a control token, too.
  const chat = { ...asked, messages: asked.messages.map(withParsedArguments) };
  if (template.source === null) {
    const { text, fallback } = await template.render(chat);
    const ids = tokenizer.encode(text, { special: false, limit });
    return { ids: beginToken === null ? ids : [beginToken, ...ids], fallback };
  }
  const { controlText } = tokenizer;
  const texts = textsOf(chat);
  if (!texts.some(text => controlText.spells(text))) {
    const { text, fallback } = await template.render(chat);
    return { ids: tokenizer.encode(text, { special: true, limit }), fallback };
  }
  const breaker = chooseBreaker([...texts, template.source]);
  const safe = mapTexts(chat, text => controlText.break(text, breaker)) as Chat;
  const { text, fallback } = await template.render(safe);
  return { ids: tokenizer.encode(text, { special: true, breaker, limit }), fallback };
}

/** Every string inside, names of fields too. */
function textsOf(value: unknown): string[] {
  const texts: string[] = [];
  mapTexts(value, text => {
    texts.push(text);
    return text;
  });
  return texts;
}

/** A copy of plain data with every string changed, names of fields too. */
function mapTexts(value: unknown, change: (text: string) => string): unknown {
  if (typeof value === 'string') return change(value);
  if (Array.isArray(value)) return value.map(each => mapTexts(each, change));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, each]) => [change(key), mapTexts(each, change)]),
  );
}
