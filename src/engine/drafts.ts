import { DraftLookup } from './draft-lookup.ts';
import type { PassCost } from './pass-cost.ts';

/** Most drafted tokens of a pass: with the token before them they are one chunk of the kernels. */
export const MOST_DRAFTED = 15;
/** How much the last token that was looked for counts in the share of those that came. */
const NEW = 0.15;
/** A draft has to give so many times the tokens a second: what it costs is a mean, on a machine that does other things, too. */
const LEAST_GAIN = 1.15;
/** A draft never counts as sure. */
const MOST_LIKELY = 0.97;

/**
 * Drafts the next tokens of one answer from the text so far, as many as pay. What they are worth is known without drafting: the
 * first token that the lookup finds is compared with the one that is drawn, whether it was in a pass or not.
 */
export class Drafts {
  readonly #lookup = new DraftLookup();
  /** What may come next, and how much of it came. */
  #found: readonly number[] = [];
  #came = 0;
  /** Share of the tokens found that came, a moving mean. */
  #likely = 0;

  /** At most `most` tokens that may follow `tokens`. */
  next(tokens: readonly number[], most: number, cost: PassCost): readonly number[] {
    this.#found = this.#lookup.find(tokens, Math.min(most, MOST_DRAFTED));
    this.#came = 0;
    return this.#found.slice(0, this.#worth(this.#found.length, cost));
  }

  /** A token was drawn behind those that were given to next(), or behind the last one that was drawn. */
  drawn(id: number): void {
    if (this.#came >= this.#found.length) return;
    const comes = this.#found[this.#came] === id;
    this.#likely += NEW * ((comes ? 1 : 0) - this.#likely);
    this.#came = comes ? this.#came + 1 : this.#found.length;
  }

  /** The number of tokens that gives the most for the time of the pass; 0 where none is clearly better than no draft. */
  #worth(most: number, cost: PassCost): number {
    const likely = Math.min(this.#likely, MOST_LIKELY);
    let best = 0;
    let rate = LEAST_GAIN; // tokens in the time of a pass of one; without a draft it is 1
    let tokens = 1; // that such a pass gives: one, and each drafted one if all before it came
    let all = 1;
    for (let drafted = 1; drafted <= most; drafted++) {
      all *= likely;
      tokens += all;
      const now = tokens / cost.of(1 + drafted);
      if (now > rate) [best, rate] = [drafted, now];
    }
    return best;
  }
}
