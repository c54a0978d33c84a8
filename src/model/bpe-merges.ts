import { invalidTokenizer } from './model-vocabulary.ts';
import {
  behind,
  type MergeArrays,
  MOST_IN_A_ROW,
  type Offered,
  PLACES_AN_ENTRY,
  placeOf,
  type Vocabulary,
} from './vocabulary.ts';

/**
 * Byte-pair encoding of words: the pair of neighbours with the lowest rank is merged, the leftmost of equals, until no pair
 * is in the list. Time is n log n in the length of a word; a merge takes 18 bytes, 12 of them in the vocabulary.
 */
export class BpeMerges {
  readonly #vocabulary: Vocabulary;
  readonly #offered: Offered;
  readonly #merges: MergeArrays;
  /** Open addressing by (left, right): rank + 1, 0 for an empty place; [places]. */
  readonly #places: Int32Array;

  /** `hidden`: ids that no text becomes; merges that have one are left out. Throws PACK_INVALID where they were chosen to collide. */
  constructor(vocabulary: Vocabulary, merges: MergeArrays, hidden: ReadonlySet<number>) {
    this.#vocabulary = vocabulary;
    this.#offered = id => !hidden.has(id);
    this.#merges = merges;
    const { lefts, rights, made } = merges;
    this.#places = new Int32Array(Math.ceil(made.length * PLACES_AN_ENTRY) + 1);
    for (let rank = 0; rank < made.length; rank++) {
      if (hidden.has(lefts[rank]!) || hidden.has(rights[rank]!) || hidden.has(made[rank]!)) continue;
      this.#add(lefts[rank]!, rights[rank]!, rank);
    }
  }

  /** The pieces of a word: ids, and for characters that are no pieces the characters themselves. */
  encode(word: string): (number | string)[] {
    const symbols = Array.from(word);
    const ids = Int32Array.from(symbols, symbol => this.#vocabulary.find(symbol, this.#offered) ?? -1);
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
      ids[left] = this.#merges.made[rank]!;
      const after = next[right]!;
      next[left] = after;
      next[right] = -1;
      if (after < length) previous[after] = left;
      if (previous[left]! >= 0) propose(previous[left]!);
      propose(left);
    }
    return next;
  }

  #add(left: number, right: number, rank: number): void {
    const places = this.#places;
    const at = this.#place(left, right);
    const tried = (at - firstPlace(left, right, places.length) + places.length) % places.length;
    if (tried > MOST_IN_A_ROW) throw invalidTokenizer('has merges that collide');
    // The list may have a pair twice: the later rank counts, as in a map that is filled in order.
    places[at] = rank + 1;
  }

  /** Where the pair is, or the empty place where it would be. */
  #place(left: number, right: number): number {
    const places = this.#places;
    const { lefts, rights } = this.#merges;
    let at = firstPlace(left, right, places.length);
    for (; places[at] !== 0; at = behind(at, places.length)) {
      const rank = places[at]! - 1;
      if (lefts[rank] === left && rights[rank] === right) break;
    }
    return at;
  }

  /** The rank of a pair, or -1. */
  #find(left: number, right: number): number {
    if (left < 0 || right < 0) return -1;
    return this.#places[this.#place(left, right)]! - 1;
  }
}

const firstPlace = (left: number, right: number, places: number): number =>
  placeOf(Math.imul(left, 0x9e3779b1) ^ right, places);

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
