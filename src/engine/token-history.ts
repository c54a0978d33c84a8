import type { Sampling } from './generate.ts';

/** True where sampling looks at earlier tokens. */
export const needsHistory = (s: Sampling): boolean =>
  s.repetitionPenalty !== 1 || s.presencePenalty !== 0 || s.frequencyPenalty !== 0;

/** The distinct tokens of a sequence with how often each was generated, kept up token by token. */
export class TokenHistory {
  /** Distinct tokens in order of appearance. */
  readonly ids: number[] = [];
  /** How often ids[i] is in the output; 0 where only the prompt has it. */
  readonly outputs: number[] = [];
  readonly #places = new Map<number, number>();

  addPrompt(token: number): void {
    this.#place(token);
  }

  addOutput(token: number): void {
    const place = this.#place(token);
    this.outputs[place] = this.outputs[place]! + 1;
  }

  #place(token: number): number {
    const known = this.#places.get(token);
    if (known !== undefined) return known;
    const place = this.ids.length;
    this.#places.set(token, place);
    this.ids.push(token);
    this.outputs.push(0);
    return place;
  }
}
