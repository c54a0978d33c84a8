/**
 * Byte-pair encoding of words: the pair of neighbours with the lowest rank is merged, the leftmost of equals, until no pair
 * is in the list. Time is n log n in the length of a word; the list takes 16 bytes a merge, twice, in place of a text.
 */
export class BpeMerges {
  readonly #ids: ReadonlyMap<string, number>;
  /** The piece that merge `rank` makes; [merges]. */
  readonly #made: Int32Array;
  /** Open addressing by (left, right): rank + 1, 0 for an empty place; [slots]. */
  readonly #ranks: Int32Array;
  readonly #lefts: Int32Array;
  readonly #rights: Int32Array;
  readonly #mask: number;

  /**
   * `ids`: the id of each piece. `merges`: pairs of pieces, the lowest rank first; those whose parts or whole are not
   * pieces are left out.
   */
  constructor(ids: ReadonlyMap<string, number>, merges: Iterable<readonly [string, string]>, count: number) {
    this.#ids = ids;
    let slots = 16;
    while (slots < 2 * count) slots *= 2;
    this.#mask = slots - 1;
    this.#made = new Int32Array(count);
    this.#ranks = new Int32Array(slots);
    this.#lefts = new Int32Array(slots);
    this.#rights = new Int32Array(slots);
    let rank = 0;
    for (const [first, second] of merges) {
      const left = ids.get(first);
      const right = ids.get(second);
      const made = ids.get(first + second);
      if (left !== undefined && right !== undefined && made !== undefined) this.#add(left, right, rank, made);
      rank++;
    }
  }

  /** The pieces of a word: ids, and for characters that are no pieces the characters themselves. */
  encode(word: string): (number | string)[] {
    const symbols = Array.from(word);
    const ids = Int32Array.from(symbols, symbol => this.#ids.get(symbol) ?? -1);
    const next = this.#merge(ids);
    const pieces: (number | string)[] = [];
    for (let at = 0; at < ids.length; at = next[at]!) pieces.push(ids[at]! < 0 ? symbols[at]! : ids[at]!);
    return pieces;
  }

  /** Merges in place; returns where the piece behind each piece begins. */
  #merge(ids: Int32Array): Int32Array {
    const { length } = ids;
    const next = Int32Array.from({ length }, (_, at) => at + 1);
    const previous = Int32Array.from({ length }, (_, at) => at - 1);
    const queue = new MergeQueue();
    const propose = (left: number): void => {
      const right = next[left]!;
      if (right >= length) return;
      const rank = this.#find(ids[left]!, ids[right]!);
      if (rank >= 0) queue.push(rank, left);
    };
    for (let at = 0; at < length; at++) propose(at);
    for (let found = queue.pop(); found !== undefined; found = queue.pop()) {
      const { rank, at: left } = found;
      const right = next[left]!;
      // A symbol that was merged into the one before it has no next one, and other pairs have other ranks.
      if (right < 0 || right >= length || this.#find(ids[left]!, ids[right]!) !== rank) continue;
      ids[left] = this.#made[rank]!;
      const after = next[right]!;
      next[left] = after;
      next[right] = -1;
      if (after < length) previous[after] = left;
      if (previous[left]! >= 0) propose(previous[left]!);
      propose(left);
    }
    return next;
  }

  #slot(left: number, right: number): number {
    let slot = (Math.imul(left, 0x9e3779b1) ^ Math.imul(right, 0x85ebca6b)) & this.#mask;
    while (this.#ranks[slot] !== 0 && (this.#lefts[slot] !== left || this.#rights[slot] !== right))
      slot = (slot + 1) & this.#mask;
    return slot;
  }

  #add(left: number, right: number, rank: number, made: number): void {
    const slot = this.#slot(left, right);
    // The list may have a pair twice: the later rank counts, as in a map that is filled in order.
    this.#ranks[slot] = rank + 1;
    this.#lefts[slot] = left;
    this.#rights[slot] = right;
    this.#made[rank] = made;
  }

  /** The rank of a pair, or -1. */
  #find(left: number, right: number): number {
    if (left < 0 || right < 0) return -1;
    return this.#ranks[this.#slot(left, right)]! - 1;
  }
}

/** A heap of merges, the lowest rank first, then the lowest place. */
class MergeQueue {
  /** rank * PLACES + place. */
  readonly #keys: number[] = [];

  push(rank: number, at: number): void {
    const keys = this.#keys;
    const key = rank * PLACES + at;
    let child = keys.length;
    keys.push(key);
    while (child > 0) {
      const parent = (child - 1) >> 1;
      if (keys[parent]! <= key) break;
      keys[child] = keys[parent]!;
      child = parent;
    }
    keys[child] = key;
  }

  pop(): { readonly rank: number; readonly at: number } | undefined {
    const keys = this.#keys;
    const [least] = keys;
    const last = keys.pop();
    if (least === undefined || last === undefined) return undefined;
    if (keys.length > 0) this.#sink(last);
    return { rank: Math.floor(least / PLACES), at: least % PLACES };
  }

  #sink(key: number): void {
    const keys = this.#keys;
    const { length } = keys;
    let at = 0;
    for (let child = 1; child < length; child = 2 * at + 1) {
      if (child + 1 < length && keys[child + 1]! < keys[child]!) child++;
      if (keys[child]! >= key) break;
      keys[at] = keys[child]!;
      at = child;
    }
    keys[at] = key;
  }
}

/** More places than a word can have; ranks times this are exact in a double. */
const PLACES = 2 ** 29;
