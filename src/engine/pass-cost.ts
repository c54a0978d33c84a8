/** Share of a new measurement in a mean. */
const NEW = 0.2;
/** What a further token of a pass is taken to cost until one was measured, of the time of a pass of one token. */
const UNKNOWN = 0.2;
/** How much of what was measured each pass of one token forgets: what was too dear once is tried again later. */
const FORGOTTEN = 0.01;
/** A pass that took longer says something of the machine, not of its tokens. */
const DEAREST = 1;

/** What a pass of a few tokens costs, beside a pass of one: a mean of what such passes took. */
export class PassCost {
  /** Milliseconds of a pass of one token; null until one was measured. */
  #one: number | null = null;
  /** Of a further token, of the time of a pass of one. */
  #further = UNKNOWN;

  note(tokens: number, milliseconds: number): void {
    if (tokens === 1) {
      this.#one = this.#one === null ? milliseconds : this.#one + NEW * (milliseconds - this.#one);
      this.#further += FORGOTTEN * (UNKNOWN - this.#further);
    } else if (this.#one !== null && this.#one > 0) {
      const further = (milliseconds / this.#one - 1) / (tokens - 1);
      this.#further += NEW * (Math.min(DEAREST, Math.max(0, further)) - this.#further);
    }
  }

  /** Of a pass of `tokens` tokens, in passes of one. */
  of(tokens: number): number {
    return 1 + this.#further * (tokens - 1);
  }
}
