/** Tokens that have to come again before what followed them is drafted. */
const REPEATED = 3;
const LEAST_PLACES = 256;

/**
 * Finds what followed the last tokens of a text where they stood before: prompt lookup decoding (Saxena, 2023). Answers
 * repeat their prompt and themselves: names, code, quotations, lists. One text each; it may only grow. Takes 8 to 16 bytes a token.
 */
export class DraftLookup {
  /** By hash of REPEATED tokens: the position behind where they stood last; 0 where there is none. [a power of two] */
  #places = new Int32Array(LEAST_PLACES);
  /** Places behind which tokens up to here stand are known. */
  #known = REPEATED;

  /** At most `most` tokens that may follow `tokens`; none where the last ones are new. */
  find(tokens: readonly number[], most: number): number[] {
    this.#learn(tokens);
    const end = tokens.length;
    if (end < REPEATED || most < 1) return [];
    const place = this.#places[this.#hash(tokens, end)]!;
    if (place === 0) return [];
    // Other tokens may have the same hash.
    for (let back = 1; back <= REPEATED; back++) if (tokens[place - back] !== tokens[end - back]) return [];
    const draft: number[] = [];
    // Behind the end of the text its draft goes on: what repeats itself all the time is drafted, too.
    for (let at = place; draft.length < most; at++) draft.push(at < end ? tokens[at]! : draft[at - end]!);
    return draft;
  }

  /** Takes note of all tokens but the last: nothing follows it yet. */
  #learn(tokens: readonly number[]): void {
    if (tokens.length * 2 > this.#places.length) {
      let length = this.#places.length;
      while (tokens.length * 2 > length) length *= 2;
      this.#places = new Int32Array(length);
      this.#known = REPEATED;
    }
    for (; this.#known < tokens.length; this.#known++)
      this.#places[this.#hash(tokens, this.#known)] = this.#known;
  }

  #hash(tokens: readonly number[], end: number): number {
    let hash = 0;
    for (let at = end - REPEATED; at < end; at++) hash = Math.imul(hash ^ tokens[at]!, 0x9e3779b1);
    return (hash ^ (hash >>> 15)) & (this.#places.length - 1);
  }
}
