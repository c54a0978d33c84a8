/** Share of a new measurement in a mean. */
const NEW = 0.2;
/** What a further token of a pass is taken to cost until one was measured, of the time of a pass of one token. */
const UNKNOWN = 0.2;

/** What a pass of a few tokens costs, beside a pass of one: a mean of what such passes took. */
export class PassCost {
  /** Milliseconds of a pass of one token; null until one was measured. */
  #one: number | null = null;
  /** Of a further token, of the time of a pass of one. */
  #further = UNKNOWN;

  note(tokens: number, milliseconds: number): void {
    if (tokens === 1) {
      this.#one = this.#one === null ? milliseconds : this.#one + NEW * (milliseconds - this.#one);
    } else if (this.#one !== null && this.#one > 0) {
      const further = Math.max(0, milliseconds / this.#one - 1) / (tokens - 1);
      this.#further += NEW * (further - this.#further);
    }
  }

  /** Of a pass of `tokens` tokens, in passes of one. */
  of(tokens: number): number {
    return 1 + this.#further * (tokens - 1);
  }
}
