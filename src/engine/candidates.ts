import type { LogitMath } from '../kernels/logit-math.ts';

/**
 * The tokens that a draw can still give, in rising id order, and the filters that narrow them. A filter keeps the first
 * tokens of the order (greater logit first, then lower id), but nothing is ever sorted whole: top_k keeps a heap of k,
 * top_p adds weights by bins and sorts only the bin in which the sum is reached.
 */

/** Candidates lie at most this far below the greatest, after temperature: e^-50 is lost in the rounding of a sum. */
const SPREAD = 50;
const BINS_PER_UNIT = 8;
const BINS = SPREAD * BINS_PER_UNIT + 1;
/** Weights that a draw adds up before it looks at each. */
const SUMMED = 64;
/** The most that a difference of logits is multiplied by: a temperature under its inverse is as good as greedy. */
const MOST_INVERSE = 1e30;

export class Candidates {
  count = 0;
  readonly #math: LogitMath;
  #capacity = 0;
  /** [capacity]; the first `count` are valid, ids rising. Not written where all tokens were taken: ids are places then. */
  #ids = new Int32Array(0);
  #all = false;
  #gathered = new Float32Array(0);
  /** Logits of the candidates: those gathered, or the row itself. */
  #logits: Float32Array = this.#gathered;
  /** exp((logit - max) / temperature), 1 for the greatest; [capacity], after weigh(). */
  #weights = new Float32Array(0);
  /** Sums of SUMMED weights each. */
  #sums = new Float64Array(0);
  /** Indices of candidates: the heap of top_k, the sorted bin of top_p; [capacity]. */
  #order = new Int32Array(0);
  /** Sum of weights by distance from the greatest; [BINS]. */
  readonly #bins = new Float64Array(BINS);

  constructor(math: LogitMath) {
    this.#math = math;
  }

  /** Takes every token of `logits`, [vocabulary] without NaN, which must stay until the draw. No filter may follow. */
  takeAll(logits: Float32Array): void {
    if (this.#capacity < logits.length) this.#grow(logits.length);
    this.#logits = logits;
    this.#all = true;
    this.count = logits.length;
  }

  /** Takes every token of `logits`, [vocabulary] without NaN, whose weight would not vanish. */
  gather(logits: Float32Array, max: number, temperature: number): void {
    if (this.#capacity < logits.length) this.#grow(logits.length);
    this.#all = false;
    this.#logits = this.#gathered;
    const floor = max - SPREAD * temperature;
    let count = 0;
    for (let id = 0; id < logits.length; id++) {
      const logit = logits[id]!;
      if (logit >= floor) {
        this.#ids[count] = id;
        this.#logits[count++] = logit;
      }
    }
    this.count = count;
  }

  #grow(capacity: number): void {
    this.#capacity = capacity;
    this.#ids = new Int32Array(capacity);
    this.#gathered = new Float32Array(capacity);
    this.#weights = new Float32Array(capacity);
    this.#sums = new Float64Array(Math.ceil(capacity / SUMMED));
    this.#order = new Int32Array(capacity);
  }

  /** Keeps the k first. */
  keepTop(k: number): void {
    if (k >= this.count) return;
    const heap = this.#order;
    const logits = this.#logits;
    // The root is the last of the k first so far. Ids rise, so a later candidate with the root's logit comes after it.
    for (let i = 0; i < k; i++) heap[i] = i;
    for (let i = (k >> 1) - 1; i >= 0; i--) this.#sink(i, k);
    for (let i = k; i < this.count; i++) {
      if (logits[i]! <= logits[heap[0]!]!) continue;
      heap[0] = i;
      this.#sink(0, k);
    }
    this.#keepUpTo(heap[0]!);
  }

  /** Restores the heap below `at`: a parent comes after its children in the order. */
  #sink(at: number, size: number): void {
    const heap = this.#order;
    const item = heap[at]!;
    let hole = at;
    for (;;) {
      let child = 2 * hole + 1;
      if (child >= size) break;
      if (child + 1 < size && this.#before(heap[child]!, heap[child + 1]!)) child++;
      if (this.#before(heap[child]!, item)) break;
      heap[hole] = heap[child]!;
      hole = child;
    }
    heap[hole] = item;
  }

  #before(a: number, b: number): boolean {
    const difference = this.#logits[a]! - this.#logits[b]!;
    return difference > 0 || (difference === 0 && a < b);
  }

  /** Drops what comes after candidate `last` in the order. */
  #keepUpTo(last: number): void {
    const logit = this.#logits[last]!;
    let kept = 0;
    for (let i = 0; i < this.count; i++) {
      if (this.#logits[i]! > logit || (this.#logits[i] === logit && i <= last)) this.#move(i, kept++);
    }
    this.count = kept;
  }

  #move(from: number, to: number): void {
    this.#ids[to] = this.#ids[from]!;
    this.#logits[to] = this.#logits[from]!;
    this.#weights[to] = this.#weights[from]!;
  }

  /** Computes the weights. */
  weigh(max: number, temperature: number): void {
    const inverse = Math.min(1 / temperature, MOST_INVERSE);
    this.#math.weigh(this.#logits.subarray(0, this.count), max, inverse, this.#weights);
  }

  /** Keeps the fewest first candidates that have `share` (below 1) of all weight, at least one. */
  keepShare(share: number, max: number, temperature: number): void {
    const bins = this.#bins.fill(0);
    let total = 0;
    for (let i = 0; i < this.count; i++) {
      total += this.#weights[i]!;
      const bin = this.#bin(i, max, temperature);
      bins[bin] = bins[bin]! + this.#weights[i]!;
    }
    const goal = share * total;
    let sum = 0;
    let bin = 0;
    while (bin < BINS - 1 && sum + bins[bin]! < goal) sum += bins[bin++]!;
    let inBin = 0;
    for (let i = 0; i < this.count; i++) if (this.#bin(i, max, temperature) === bin) this.#order[inBin++] = i;
    if (inBin === 0) return; // rounding left the sum below the goal with every candidate in it
    const order = this.#order.subarray(0, inBin).sort((a, b) => (this.#before(a, b) ? -1 : 1));
    let at = 0;
    while (at < inBin - 1 && sum + this.#weights[order[at]!]! < goal) sum += this.#weights[order[at++]!]!;
    this.#keepUpTo(order[at]!);
  }

  /** 0 for the greatest logit, rising as logits fall. */
  #bin(i: number, max: number, temperature: number): number {
    return Math.min(BINS - 1, Math.floor(((max - this.#logits[i]!) / temperature) * BINS_PER_UNIT));
  }

  /** Drops candidates with a weight below `least` (the greatest weight is 1). */
  keepWeight(least: number): void {
    let kept = 0;
    for (let i = 0; i < this.count; i++) if (this.#weights[i]! >= least) this.#move(i, kept++);
    this.count = kept;
  }

  /** The token at `u`, in [0, 1), of the weights laid end to end in id order. */
  draw(u: number): number {
    const sums = this.#sums;
    const goal = u * this.#addUp();
    this.#logits = this.#gathered; // the row may belong to a model that is closed before the next draw
    let sum = 0;
    let part = 0;
    for (; part < Math.ceil(this.count / SUMMED) && sum + sums[part]! <= goal; part++) sum += sums[part]!;
    for (let i = part * SUMMED; i < this.count; i++) {
      sum += this.#weights[i]!;
      if (sum > goal) return this.#id(i);
    }
    // rounding left the sum below the goal
    for (let i = this.count - 1; ; i--) if (this.#weights[i]! > 0) return this.#id(i);
  }

  /** Fills the sums; returns that of all. */
  #addUp(): number {
    const weights = this.#weights;
    let total = 0;
    for (let part = 0; part * SUMMED < this.count; part++) {
      const past = Math.min((part + 1) * SUMMED, this.count);
      let even = 0;
      let odd = 0;
      let i = part * SUMMED;
      for (; i + 1 < past; i += 2) {
        even += weights[i]!;
        odd += weights[i + 1]!;
      }
      if (i < past) even += weights[i]!;
      this.#sums[part] = even + odd;
      total += even + odd;
    }
    return total;
  }

  #id(i: number): number {
    return this.#all ? i : this.#ids[i]!;
  }
}
