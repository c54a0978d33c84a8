import { Template } from '@huggingface/jinja';

/** What the worker is asked, and what it answers. Plain data: it crosses a thread border. */
export interface RenderRequest {
  readonly source: string;
  readonly messages: readonly ChatMessage[];
  /** Further variables: bos_token, eos_token, enable_thinking ... */
  readonly variables: Readonly<Record<string, string | number | boolean>>;
  /** Milliseconds since 1970, for `strftime_now`. */
  readonly now: number;
  /** Most characters of the result. */
  readonly maxCharacters: number;
}

export interface ChatMessage {
  readonly role: 'system' | 'user' | 'assistant';
  readonly content: string;
}

export type RenderReply =
  | { readonly type: 'ready' }
  | { readonly type: 'text'; readonly text: string }
  | { readonly type: 'failed'; readonly message: string };

const MONTHS = 'January February March April May June July August September October November December'.split(
  ' ',
);
const DAYS = 'Sunday Monday Tuesday Wednesday Thursday Friday Saturday'.split(' ');
const MAX_MESSAGE = 500;
/** The library's own strftime_now, which cannot be declared again, writes months in the language of the system. */
const ENGLISH_DATES = new Template('{% set strftime_now = english_strftime %}');

/** Renders with the generation prompt. Never throws. */
export function renderChatTemplate(request: RenderRequest): RenderReply {
  const { source, messages, variables, now, maxCharacters } = request;
  try {
    const template = new Template(source);
    template.parsed.body.unshift(...ENGLISH_DATES.parsed.body);
    const text = template.render({
      ...variables,
      messages: messages.map(({ role, content }) => ({ role, content })),
      add_generation_prompt: true,
      english_strftime: (format: unknown) => strftime(new Date(now), String(format)),
    });
    if (text.length <= maxCharacters) return { type: 'text', text };
    return { type: 'failed', message: `It made ${text.length} characters; the limit is ${maxCharacters}.` };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return { type: 'failed', message: message.slice(0, MAX_MESSAGE) };
  }
}

/** Python's strftime in English and local time, for the fields that templates use. */
export function strftime(date: Date, format: string): string {
  const two = (value: number) => String(value).padStart(2, '0');
  const fields: Record<string, () => string> = {
    Y: () => String(date.getFullYear()),
    y: () => two(date.getFullYear() % 100),
    m: () => two(date.getMonth() + 1),
    d: () => two(date.getDate()),
    B: () => MONTHS[date.getMonth()]!,
    b: () => MONTHS[date.getMonth()]!.slice(0, 3),
    A: () => DAYS[date.getDay()]!,
    a: () => DAYS[date.getDay()]!.slice(0, 3),
    H: () => two(date.getHours()),
    M: () => two(date.getMinutes()),
    S: () => two(date.getSeconds()),
    '%': () => '%',
  };
  return format.replace(/%([A-Za-z%])/g, (whole, field: string) => fields[field]?.() ?? whole);
}
