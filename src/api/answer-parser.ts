import type { AnswerFormat } from '../model/answer-format.ts';
import { ReasoningStream } from '../model/reasoning-stream.ts';
import { type AnswerPart, ToolCallStream } from '../model/tool-call-stream.ts';

export type ParsedPart = AnswerPart | { readonly type: 'reasoning'; readonly text: string };

/** What an answer's text is looked through for. */
export interface AnswerParsing {
  /** `tools` is null where the request has none. */
  readonly format: AnswerFormat;
  /** Names of the tools of the request. */
  readonly toolNames: readonly string[];
  /** The prompt ends inside thoughts. */
  readonly thinking: boolean;
  /** What the prompt already holds of the answer: the beginning of a call. */
  readonly begun: string;
}

/** Splits the text of an answer, as it comes, into thoughts, text and calls of tools. */
export class AnswerParser {
  readonly #reasoning: ReasoningStream | null;
  readonly #calls: ToolCallStream | null;
  #begun: string;

  constructor({ format, toolNames, thinking, begun }: AnswerParsing) {
    this.#reasoning = format.thinks ? new ReasoningStream(thinking) : null;
    this.#calls = format.tools === null ? null : new ToolCallStream(format.tools, toolNames);
    this.#begun = begun;
  }

  push(piece: string): ParsedPart[] {
    const text = this.#begun + piece;
    this.#begun = '';
    if (this.#reasoning === null) return this.#inText(text);
    return this.#reasoning.push(text).flatMap(part => this.#behindReasoning(part));
  }

  end(): ParsedPart[] {
    const rest = this.#reasoning?.end() ?? [];
    return [...rest.flatMap(part => this.#behindReasoning(part)), ...(this.#calls?.end() ?? [])];
  }

  #behindReasoning(part: { type: 'reasoning' | 'text'; text: string }): ParsedPart[] {
    return part.type === 'reasoning' ? [{ type: 'reasoning', text: part.text }] : this.#inText(part.text);
  }

  #inText(text: string): ParsedPart[] {
    if (this.#calls !== null) return this.#calls.push(text);
    return text === '' ? [] : [{ type: 'text', text }];
  }
}
