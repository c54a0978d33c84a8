import type { ChatMessage, ChatTemplate, TemplateVariables } from './chat-template.ts';
import { chooseBreaker } from './control-text.ts';
import type { Tokenizer } from './tokenizer.ts';

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
 * Token ids of a chat with the generation prompt. Control tokens come from the template alone: where a message or a variable
 * spells one, it stays text. Rejects with TEMPLATE_FAILED, BUSY, STOPPED or CONTEXT_TOO_LONG.
 */
export async function encodeChat(
  options: ChatTokensOptions,
  messages: readonly ChatMessage[],
  extra: TemplateVariables,
): Promise<ChatTokens> {
  const { tokenizer, template, beginToken, context: limit } = options;
  if (template.source === null) {
    const { text, fallback } = await template.render(messages, extra);
    const ids = tokenizer.encode(text, { special: false, limit });
    return { ids: beginToken === null ? ids : [beginToken, ...ids], fallback };
  }
  const values = Object.values(extra).filter(value => typeof value === 'string');
  const texts = [...messages.map(message => message.content), ...values];
  const { controlText } = tokenizer;
  if (!texts.some(text => controlText.spells(text))) {
    const { text, fallback } = await template.render(messages, extra);
    return { ids: tokenizer.encode(text, { special: true, limit }), fallback };
  }
  const breaker = chooseBreaker([...texts, template.source]);
  const safe = messages.map(({ role, content }) => ({ role, content: controlText.break(content, breaker) }));
  const safeExtra = Object.entries(extra).map(([name, value]) => [
    name,
    typeof value === 'string' ? controlText.break(value, breaker) : value,
  ]);
  const { text, fallback } = await template.render(safe, Object.fromEntries(safeExtra));
  return { ids: tokenizer.encode(text, { special: true, breaker, limit }), fallback };
}
