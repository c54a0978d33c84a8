import { Template } from '@huggingface/jinja';

/** A conversation and what its template is told besides. */
export interface Chat {
  readonly messages: readonly ChatMessage[];
  /** Functions that the model may call, in OpenAI's form; templates print them as they are. */
  readonly tools?: readonly JsonObject[];
  /** Further variables: enable_thinking ... */
  readonly variables: TemplateVariables;
}

export type TemplateVariables = Readonly<Record<string, string | number | boolean>>;
export type JsonValue = string | number | boolean | null | readonly JsonValue[] | JsonObject;
export interface JsonObject {
  readonly [key: string]: JsonValue;
}

/** A message in OpenAI's form. */
export interface ChatMessage {
  readonly role: 'system' | 'user' | 'assistant' | 'tool';
  readonly content: string;
  /** Of an assistant: what it thought before it answered. */
  readonly reasoning_content?: string;
  /** Of an assistant: the calls it made. */
  readonly tool_calls?: readonly ToolCall[];
  /** Of a system message, for templates that look for tools there: JSON text. */
  readonly tools?: string;
  /** Of a tool: the call this is the result of, and the function's name. */
  readonly tool_call_id?: string;
  readonly name?: string;
}

export interface ToolCall {
  readonly id: string;
  readonly type: 'function';
  /** `arguments`: JSON text, or what it says. */
  readonly function: { readonly name: string; readonly arguments: string | JsonObject };
}

/** What the worker is asked, and what it answers. Plain data: it crosses a thread border. */
export interface RenderRequest extends Chat {
  readonly source: string;
  /** Milliseconds since 1970, for `strftime_now`. */
  readonly now: number;
  /** Most characters of the result. */
  readonly maxCharacters: number;
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
  const { source, messages, tools, variables, now, maxCharacters } = request;
  try {
    const template = new Template(source);
    template.parsed.body.unshift(...ENGLISH_DATES.parsed.body);
    const text = template.render({
      ...variables,
      messages,
      // What Python would give as None: templates ask for both `is defined` and `is none`.
      tools: tools ?? null,
      documents: null,
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
