/** Tokens a second over the last WINDOW seconds, in buckets of one second. Times in milliseconds of any clock that rises. */

const WINDOW = 10;

export class Throughput {
  /** Tokens of second s at s % WINDOW; [WINDOW]. */
  readonly #buckets = new Float64Array(WINDOW);
  #second = Number.NEGATIVE_INFINITY;
  /** When tokens began to come after a pause longer than the window. */
  #since = 0;

  add(now: number, tokens: number): void {
    if (Math.floor(now / 1000) - this.#second >= WINDOW) this.#since = now;
    this.#advance(now);
    const bucket = this.#second % WINDOW;
    this.#buckets[bucket] = this.#buckets[bucket]! + tokens;
  }

  /** Tokens a second; time since the first token where that is less than the window, but at least one second. */
  rate(now: number): number {
    this.#advance(now);
    let tokens = 0;
    for (const n of this.#buckets) tokens += n;
    const covered = WINDOW - 1 + (now / 1000 - this.#second);
    return tokens / Math.min(covered, Math.max(1, (now - this.#since) / 1000));
  }

  /** Clears the buckets of seconds that have passed. */
  #advance(now: number): void {
    const second = Math.floor(now / 1000);
    if (second <= this.#second) return;
    const from = Math.max(this.#second + 1, second - WINDOW + 1);
    for (let s = from; s <= second; s++) this.#buckets[s % WINDOW] = 0;
    this.#second = second;
  }
}
