/** Times of the last sums, in microseconds. */
export class SumLatency {
  readonly #window = new Float64Array(1024);
  #count = 0;

  /** Sums since the beginning. */
  get count(): number {
    return this.#count;
  }

  add(microseconds: number): void {
    this.#window[this.#count++ % this.#window.length] = microseconds;
  }

  /** The time that `share` (0..1) of the last 1024 sums did not exceed; 0 where there were none. */
  percentile(share: number): number {
    const here = this.#window.slice(0, Math.min(this.#count, this.#window.length)).sort();
    return here[Math.max(0, Math.ceil(share * here.length) - 1)] ?? 0;
  }
}
