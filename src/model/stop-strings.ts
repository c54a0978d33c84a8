/**
 * Looks for stop strings in text that comes in pieces. The match that ends first counts (of those that end together, the
 * longest), so the result does not depend on where the pieces were cut. Text that may be the beginning of a stop string is held back.
 */
export class StopStrings {
  readonly #stops: readonly string[];
  #held = '';
  #found = false;

  /** Each stop string has at least one character. */
  constructor(stops: readonly string[]) {
    this.#stops = stops;
  }

  get found(): boolean {
    return this.#found;
  }

  /** Text that is certain after one more piece; '' after a stop string was found. */
  push(piece: string): string {
    if (this.#found) return '';
    const text = this.#held + piece;
    const cut = this.#firstMatch(text);
    if (cut !== null) {
      this.#found = true;
      this.#held = '';
      return text.slice(0, cut);
    }
    const certain = text.length - this.#uncertain(text);
    this.#held = text.slice(certain);
    return text.slice(0, certain);
  }

  /** What was held back, when no more text comes. */
  end(): string {
    const held = this.#held;
    this.#held = '';
    return held;
  }

  #firstMatch(text: string): number | null {
    let start: number | null = null;
    let end = Number.POSITIVE_INFINITY;
    for (const stop of this.#stops) {
      const at = text.indexOf(stop);
      if (at < 0) continue;
      const stopEnd = at + stop.length;
      if (stopEnd > end || (stopEnd === end && start !== null && at >= start)) continue;
      start = at;
      end = stopEnd;
    }
    return start;
  }

  /** Length of the longest end of `text` that begins a stop string. */
  #uncertain(text: string): number {
    let most = 0;
    for (const stop of this.#stops) {
      for (let length = Math.min(stop.length - 1, text.length); length > most; length--) {
        if (text.endsWith(stop.slice(0, length))) {
          most = length;
          break;
        }
      }
    }
    return most;
  }
}
