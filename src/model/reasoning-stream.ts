import { THINK } from './answer-format.ts';
import { certainLength } from './partial-mark.ts';

export interface ReasoningPart {
  readonly type: 'reasoning' | 'text';
  readonly text: string;
}

/**
 * Splits the thoughts off an answer that comes in pieces: what is between <think> at its beginning and </think>. White space around
 * both marks is dropped.
 */
export class ReasoningStream {
  #state: 'start' | 'thinking' | 'behind' | 'text';
  #held = '';
  /** Whether there was a thought: white space before the first is dropped. */
  #begun = false;

  /** `inside`: the prompt ends with <think>, so that the answer begins with thoughts. */
  constructor(inside: boolean) {
    this.#state = inside ? 'thinking' : 'start';
  }

  push(piece: string): ReasoningPart[] {
    const parts: ReasoningPart[] = [];
    let text = this.#held + piece;
    this.#held = '';
    if (this.#state === 'start') {
      const trimmed = text.trimStart();
      if (trimmed.startsWith(THINK.open)) {
        this.#state = 'thinking';
        text = trimmed.slice(THINK.open.length);
      } else if (THINK.open.startsWith(trimmed)) {
        this.#held = text;
        return parts;
      } else this.#state = 'text';
    }
    if (this.#state === 'thinking') text = this.#think(text, parts);
    if (this.#state === 'behind') {
      text = text.trimStart();
      if (text !== '') this.#state = 'text';
    }
    if (this.#state === 'text' && text !== '') parts.push({ type: 'text', text });
    return parts;
  }

  /** The rest, after the last piece. */
  end(): ReasoningPart[] {
    const text = this.#held;
    this.#held = '';
    if (text.trim() === '') return this.#state === 'start' && text !== '' ? [{ type: 'text', text }] : [];
    return [{ type: this.#state === 'thinking' ? 'reasoning' : 'text', text }];
  }

  /** Takes thoughts; returns what is behind them. */
  #think(text: string, parts: ReasoningPart[]): string {
    const at = text.indexOf(THINK.close);
    const end = at >= 0 ? at : certainLength(text, THINK.close);
    const thought = text.slice(0, end).trimEnd();
    if (thought !== '') parts.push({ type: 'reasoning', text: this.#begun ? thought : thought.trimStart() });
    this.#begun ||= thought !== '';
    if (at < 0) {
      this.#held = this.#begun ? text.slice(thought.length) : text.slice(end);
      return '';
    }
    this.#state = 'behind';
    return text.slice(at + THINK.close.length);
  }
}
