import { floatToHalf, halfToFloat } from '../pack/number-formats.ts';
import { PAGE_POSITIONS } from '../pack/tile-shape.ts';

/** Keys and values as IEEE halves: [pages, attention tiles, 2 (keys, values), PAGE_POSITIONS, headDim]. */
export class KvStore {
  readonly #halves: Uint16Array;
  readonly #tiles: number;
  readonly #headDim: number;
  /** The float32 of every half. */
  readonly #floats = Float32Array.from({ length: 65536 }, (_, half) => halfToFloat(half));
  /** Attention weights of one head; [context] */
  readonly #scores: Float64Array;
  readonly #mixed: Float64Array;

  constructor(pages: number, tiles: number, headDim: number, context: number) {
    this.#tiles = tiles;
    this.#headDim = headDim;
    this.#halves = new Uint16Array(pages * tiles * 2 * PAGE_POSITIONS * headDim);
    this.#scores = new Float64Array(context);
    this.#mixed = new Float64Array(headDim);
  }

  /** Stores key and value ([headDim] float32 each, at `key` and `value` of `x`) of a position. */
  put(pages: Int32Array, position: number, slot: number, x: Float32Array, key: number, value: number): void {
    const at = this.#at(pages, position, slot);
    const values = at + PAGE_POSITIONS * this.#headDim;
    for (let d = 0; d < this.#headDim; d++) {
      this.#halves[at + d] = floatToHalf(x[key + d]!);
      this.#halves[values + d] = floatToHalf(x[value + d]!);
    }
  }

  /**
   * Attention of one query head over the positions up to `position`. q: [headDim] at `query` of `x`, rotated and scaled;
   * the mix of values goes to `out` at `to`.
   */
  attend(
    pages: Int32Array,
    position: number,
    slot: number,
    x: Float32Array,
    query: number,
    out: Float32Array,
    to: number,
  ): void {
    const scores = this.#scores;
    let most = Number.NEGATIVE_INFINITY;
    for (let t = 0; t <= position; t++) {
      const score = this.#dot(this.#at(pages, t, slot), x, query);
      scores[t] = score;
      if (score > most) most = score;
    }
    const mixed = this.#mixed.fill(0);
    let total = 0;
    for (let t = 0; t <= position; t++) {
      const weight = Math.exp(scores[t]! - most);
      total += weight;
      this.#mix(this.#at(pages, t, slot) + PAGE_POSITIONS * this.#headDim, weight, mixed);
    }
    for (let d = 0; d < this.#headDim; d++) out[to + d] = mixed[d]! / total;
  }

  #at(pages: Int32Array, position: number, slot: number): number {
    const page = pages[Math.floor(position / PAGE_POSITIONS)]!;
    return ((page * this.#tiles + slot) * 2 * PAGE_POSITIONS + (position % PAGE_POSITIONS)) * this.#headDim;
  }

  #dot(at: number, x: Float32Array, query: number): number {
    const floats = this.#floats;
    let sum = 0;
    for (let d = 0; d < this.#headDim; d++) sum += floats[this.#halves[at + d]!]! * x[query + d]!;
    return sum;
  }

  #mix(at: number, weight: number, mixed: Float64Array): void {
    const floats = this.#floats;
    for (let d = 0; d < this.#headDim; d++) mixed[d] = mixed[d]! + weight * floats[this.#halves[at + d]!]!;
  }
}
