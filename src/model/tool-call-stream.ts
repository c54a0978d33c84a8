import type { ToolCallFormat } from './answer-format.ts';
import { JsonEnd } from './json-end.ts';
import { certainLength } from './partial-mark.ts';

export type AnswerPart =
  | { readonly type: 'text'; readonly text: string }
  /** `arguments`: JSON text. */
  | { readonly type: 'call'; readonly name: string; readonly arguments: string };

/** Most characters of one call, or list of calls; more is text. */
const MOST_CALL_CHARACTERS = 1 << 20;
const MOST_NAME_CHARACTERS = 256;

/**
 * Finds calls of tools in the text of an answer that comes in pieces. What turns out to be no call (broken JSON, no name, no end) is
 * given as the text that it is. White space between text and a call is dropped.
 */
export class ToolCallStream {
  readonly #format: ToolCallFormat;
  readonly #names: ReadonlySet<string>;
  /** Text that nothing is known of yet: what may begin a mark, and white space before it. */
  #held = '';
  /** The call that is being read; null in text. */
  #call: { mark: string; head: string; body: string; end: JsonEnd } | null = null;
  /** False once there was text: a call without a mark is the whole answer. */
  #mayBeBare: boolean;
  /** True behind a call: its close, separators and white space are dropped. */
  #behindCall = false;

  /** `names`: of the tools; a call without a mark must have one of them. */
  constructor(format: ToolCallFormat, names: readonly string[]) {
    this.#format = format;
    this.#names = new Set(names);
    this.#mayBeBare = format.bare;
  }

  push(piece: string): AnswerPart[] {
    const parts: AnswerPart[] = [];
    let rest = piece;
    while (rest !== '') rest = this.#call === null ? this.#inText(rest, parts) : this.#inCall(rest, parts);
    return joined(parts);
  }

  /** The rest, after the last piece. */
  end(): AnswerPart[] {
    const call = this.#call;
    const text = call === null ? (this.#behindCall ? '' : this.#held) : call.mark + call.head + call.body;
    this.#held = '';
    this.#call = null;
    return text === '' ? [] : [{ type: 'text', text }];
  }

  /** Takes text up to a call; returns what is behind the mark. */
  #inText(piece: string, parts: AnswerPart[]): string {
    let text = this.#held + piece;
    this.#held = '';
    if (this.#behindCall) {
      const behind = this.#dropSeparators(text);
      if (behind === null) return '';
      text = behind;
    }
    if (this.#mayBeBare && this.#beginsBare(text)) {
      if (text.trimStart() === '') this.#held = text;
      else this.#begin('');
      return this.#call === null ? '' : text.trimStart();
    }
    const { open } = this.#format;
    const at = text.indexOf(open);
    const before = at >= 0 ? text.slice(0, at) : text.slice(0, certainLength(text, open));
    const certain = before.trimEnd();
    if (certain !== '') {
      this.#mayBeBare = false;
      this.#behindCall = false;
      parts.push({ type: 'text', text: certain });
    }
    if (at < 0) {
      this.#held = text.slice(certain.length);
      return '';
    }
    this.#begin(open);
    return text.slice(at + open.length);
  }

  #beginsBare(text: string): boolean {
    const trimmed = text.trimStart();
    return trimmed === '' || trimmed.startsWith('{');
  }

  /** What is behind the close of a call and separators; null where that is not certain yet, or nothing. */
  #dropSeparators(text: string): string | null {
    const { close, bare } = this.#format;
    let rest = text.trimStart();
    for (;;) {
      if (close !== null && rest.startsWith(close)) rest = rest.slice(close.length).trimStart();
      else if (bare && rest.startsWith(';')) rest = rest.slice(1).trimStart();
      else break;
    }
    if (rest !== '' && !close?.startsWith(rest)) return rest;
    this.#held = rest;
    return null;
  }

  #begin(mark: string): void {
    this.#call = { mark, head: '', body: '', end: new JsonEnd() };
  }

  /** Takes the rest of a call; returns what is behind it. */
  #inCall(piece: string, parts: AnswerPart[]): string {
    const call = this.#call!;
    let rest = piece;
    if (call.body === '') {
      const text = call.head + rest;
      const start = text.search(/[{[](?!ARGS\])/);
      const head = start < 0 ? text : text.slice(0, start);
      // [TOOL_CALLS] may be followed by a name, and that by [ARGS]
      const mayBeHead = this.#format.name === 'mistral' ? isNameHead(head) : head.trim() === '';
      if (!mayBeHead) return this.#giveUp(parts, text);
      // '[' alone may still become [ARGS]
      if (
        start < 0 ||
        (this.#format.name === 'mistral' && head.trim() !== '' && '[ARGS]'.startsWith(text.slice(start)))
      ) {
        call.head = text;
        return '';
      }
      call.head = head;
      rest = text.slice(start);
    }
    const end = call.end.push(rest);
    call.body += end === null ? rest : rest.slice(0, end);
    if (call.mark === '' && !mayBeCall(call.body))
      return this.#giveUp(parts, call.body + (end === null ? '' : rest.slice(end)));
    if (call.body.length > MOST_CALL_CHARACTERS) return this.#giveUp(parts, call.head + call.body);
    if (end === null) return '';
    const calls = this.#callsIn(call.head, call.body);
    if (calls === null) return this.#giveUp(parts, call.head + call.body + rest.slice(end));
    parts.push(...calls);
    this.#call = null;
    this.#behindCall = true;
    this.#mayBeBare = this.#format.bare;
    return rest.slice(end);
  }

  /** It is text after all; returns what is still to be looked at. */
  #giveUp(parts: AnswerPart[], text: string): string {
    const { mark } = this.#call!;
    this.#call = null;
    this.#mayBeBare = false;
    this.#behindCall = false;
    // its first character is taken as text, so that this ends
    const first = mark === '' ? text.slice(0, 1) : mark;
    parts.push({ type: 'text', text: first });
    return mark === '' ? text.slice(1) : text;
  }

  /** The calls that a JSON text holds, or null. */
  #callsIn(head: string, body: string): AnswerPart[] | null {
    let value: unknown;
    try {
      value = JSON.parse(body);
    } catch (error) {
      if (error instanceof SyntaxError) return null;
      throw error;
    }
    const name = head.replace('[ARGS]', '').trim();
    if (name !== '') return [{ type: 'call', name, arguments: body }];
    const calls = (Array.isArray(value) ? value : [value]).map(callOf);
    if (calls.length === 0 || calls.some(call => call === null)) return null;
    const bare = this.#call!.mark === '';
    if (bare && calls.some(call => call!.type === 'call' && !this.#names.has(call!.name))) return null;
    return calls as AnswerPart[];
  }
}

const isNameHead = (head: string): boolean =>
  /^\s*(?:[\w.-]{1,256}\s*(?:\[(?:A(?:R(?:G(?:S\]?)?)?)?)?)?)?\s*$/.test(head);

/** A call in one of the shapes that models write; null where it is none. */
function callOf(value: unknown): (AnswerPart & { readonly type: 'call' }) | null {
  if (typeof value !== 'object' || value === null) return null;
  const outer = value as Record<string, unknown>;
  const call = (
    typeof outer.function === 'object' && outer.function !== null ? outer.function : outer
  ) as Record<string, unknown>;
  const { name } = call;
  if (typeof name !== 'string' || name === '' || name.length > MOST_NAME_CHARACTERS) return null;
  const given = call.arguments ?? call.parameters ?? {};
  if (typeof given !== 'string' && (typeof given !== 'object' || Array.isArray(given))) return null;
  return { type: 'call', name, arguments: typeof given === 'string' ? given : JSON.stringify(given) };
}

/** Whether the beginning of a JSON object may be that of a call: its first field tells. */
function mayBeCall(body: string): boolean {
  const field = /^\{\s*("?[^"]*"?)/.exec(body)?.[1] ?? '';
  return field === '' || ['"name"', '"type"', '"function"'].some(wanted => wanted.startsWith(field));
}

/** Neighbouring texts as one. */
function joined(parts: readonly AnswerPart[]): AnswerPart[] {
  const result: AnswerPart[] = [];
  for (const part of parts) {
    const last = result.at(-1);
    if (part.type === 'text' && last?.type === 'text')
      result[result.length - 1] = { type: 'text', text: last.text + part.text };
    else result.push(part);
  }
  return result;
}
