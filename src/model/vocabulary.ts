/**
 * The pieces of a tokenizer, by id and by text, in flat arrays: texts in UTF-8 one behind the other, and an open-addressing
 * hash table of ids. A vocabulary of 128,000 tokens and 280,000 merges takes 7 MiB so; as strings, maps and lists it takes 125.
 */

/** The arrays of a vocabulary; see src/model/vocabulary-file.ts, which checks them. */
export interface VocabularyArrays {
  /** UTF-8 of all pieces, by id; [bytes]. */
  readonly texts: Uint8Array;
  /** Where the text of each id begins, and where the last one ends; [tokens + 1]. An empty piece is none. */
  readonly offsets: Uint32Array;
  /** Of a Unigram model: logarithms of probabilities, NaN for pieces that text never becomes; [tokens]. */
  readonly scores: Float64Array | null;
  /** Of a BPE model. */
  readonly merges: MergeArrays | null;
}

/** Merge `rank` makes piece `made` of `left` and `right`; [merges] ids each. The lowest rank comes first. */
export interface MergeArrays {
  readonly lefts: Int32Array;
  readonly rights: Int32Array;
  readonly made: Int32Array;
}

/** Whether an id may be found. */
export type Offered = (id: number) => boolean;

/** Places of a table for each entry. */
export const PLACES_AN_ENTRY = 1.5;
/** Entries in a row in a table: thousands are no accident. */
export const MOST_IN_A_ROW = 4096;
const ALL: Offered = () => true;
const UTF8 = new TextDecoder('utf-8', { ignoreBOM: true });

export class Vocabulary {
  readonly arrays: VocabularyArrays;
  /** Ids go from 0 to one less; some may have no piece. */
  readonly tokens: number;
  /** UTF-16 units of the longest piece, and bytes of it in UTF-8. */
  readonly longest: number;
  readonly #longestBytes: number;
  /** Open addressing by text: id + 1, 0 for an empty place. Ids of the same text come in order; [places]. */
  readonly #places: Int32Array;
  /** What is looked for, in UTF-8. */
  readonly #wanted: Uint8Array;

  /** Throws RangeError where pieces were chosen to collide. */
  constructor(arrays: VocabularyArrays) {
    const { texts, offsets } = arrays;
    this.arrays = arrays;
    this.tokens = offsets.length - 1;
    this.#places = new Int32Array(Math.ceil(this.tokens * PLACES_AN_ENTRY) + 1);
    let longest = 0;
    let longestBytes = 0;
    for (let id = 0; id < this.tokens; id++) {
      const from = offsets[id]!;
      const to = offsets[id + 1]!;
      if (from === to) continue;
      let hash = HASH_BASIS;
      let units = 0;
      for (let at = from; at < to; at++) {
        hash = hashed(hash, texts[at]!);
        units += unitsOf(texts[at]!);
      }
      this.#add(id, hash);
      longest = Math.max(longest, units);
      longestBytes = Math.max(longestBytes, to - from);
    }
    this.longest = longest;
    this.#longestBytes = longestBytes;
    this.#wanted = new Uint8Array(longestBytes + 4);
  }

  /** The text of an id; undefined where it has none. */
  piece(id: number): string | undefined {
    const { texts, offsets } = this.arrays;
    if (!(id >= 0 && id < this.tokens) || offsets[id] === offsets[id + 1]) return undefined;
    return UTF8.decode(texts.subarray(offsets[id], offsets[id + 1]));
  }

  /** The id of a piece, the lowest of those that are offered; undefined where `text` is none. */
  find(text: string, offered: Offered = ALL): number | undefined {
    const wanted = this.#wanted;
    let length = 0;
    let hash = HASH_BASIS;
    for (let i = 0; i < text.length; i++) {
      if (length > this.#longestBytes) return undefined;
      const code = text.codePointAt(i)!;
      if (code > 0xffff) i++;
      else if (code >= 0xd800 && code <= 0xdfff) return undefined; // half a character is in no piece
      const end = writeUtf8(code, wanted, length);
      for (; length < end; length++) hash = hashed(hash, wanted[length]!);
    }
    return this.#findBytes(wanted, 0, length, hash, offered);
  }

  /** Calls back with each piece that `bytes` (UTF-8) has at `from`, the shortest first, and where it ends. */
  eachAt(bytes: Uint8Array, from: number, offered: Offered, found: (id: number, end: number) => void): void {
    const most = Math.min(bytes.length, from + this.#longestBytes);
    let hash = HASH_BASIS;
    for (let end = from; end < most; ) {
      hash = hashed(hash, bytes[end++]!);
      if (end < bytes.length && unitsOf(bytes[end]!) === 0) continue; // inside a character
      const id = this.#findBytes(bytes, from, end, hash, offered);
      if (id !== undefined) found(id, end);
    }
  }

  #findBytes(
    bytes: Uint8Array,
    from: number,
    to: number,
    hash: number,
    offered: Offered,
  ): number | undefined {
    if (from === to) return undefined;
    const places = this.#places;
    for (let at = placeOf(hash, places.length); places[at] !== 0; at = behind(at, places.length)) {
      const id = places[at]! - 1;
      if (this.#isText(id, bytes, from, to) && offered(id)) return id;
    }
    return undefined;
  }

  #isText(id: number, bytes: Uint8Array, from: number, to: number): boolean {
    const { texts, offsets } = this.arrays;
    const start = offsets[id]!;
    if (offsets[id + 1]! - start !== to - from) return false;
    for (let i = 0; i < to - from; i++) if (texts[start + i] !== bytes[from + i]) return false;
    return true;
  }

  #add(id: number, hash: number): void {
    const places = this.#places;
    let at = placeOf(hash, places.length);
    for (let tried = 0; places[at] !== 0; at = behind(at, places.length))
      if (++tried > MOST_IN_A_ROW) throw new RangeError('Its pieces collide.');
    places[at] = id + 1;
  }
}

/** FNV-1a. */
const HASH_BASIS = 0x811c9dc5;
const hashed = (hash: number, byte: number): number => Math.imul(hash ^ byte, 0x01000193);

/** The place where a hash is looked for first, spread over `places`. */
export function placeOf(hash: number, places: number): number {
  let h = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return Math.floor(((h ^ (h >>> 16)) >>> 0) * 2 ** -32 * places);
}

/** The place behind place `at`. */
export const behind = (at: number, places: number): number => (at + 1 === places ? 0 : at + 1);

/** UTF-16 units that a byte of UTF-8 begins: 0 for those inside a character. */
const unitsOf = (byte: number): number => ((byte & 0xc0) === 0x80 ? 0 : byte >= 0xf0 ? 2 : 1);

/** Writes a character and returns where it ends. */
function writeUtf8(code: number, target: Uint8Array, at: number): number {
  if (code < 0x80) {
    target[at] = code;
    return at + 1;
  }
  const further = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  target[at] = ((0xff00 >> (further + 1)) & 0xff) | (code >> (6 * further));
  for (let i = 1; i <= further; i++) target[at + i] = 0x80 | ((code >> (6 * (further - i))) & 0x3f);
  return at + further + 1;
}
