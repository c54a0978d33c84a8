import type { Offered, Vocabulary } from './vocabulary.ts';

/**
 * Unigram segmentation (Kudo 2018, arXiv 1804.10959): of all ways to cut a word into pieces, the one with the greatest sum of
 * scores, found in one pass. Time is linear in the length of a word times that of the longest piece.
 */
export class UnigramPieces {
  readonly #vocabulary: Vocabulary;
  /** By id; [tokens]. */
  readonly #scores: Float64Array;
  readonly #offered: Offered;
  /** Of a character that is no piece: ten under the least score, as SentencePiece has it. */
  readonly #unknown: number;

  /** `scores`: of each id, NaN for those that text never becomes. `hidden`: further ones. */
  constructor(vocabulary: Vocabulary, scores: Float64Array, hidden: ReadonlySet<number>) {
    const offered: Offered = id => !Number.isNaN(scores[id]!) && !hidden.has(id);
    this.#vocabulary = vocabulary;
    this.#scores = scores;
    this.#offered = offered;
    let least = 0;
    for (let id = 0; id < scores.length; id++) if (offered(id)) least = Math.min(least, scores[id]!);
    this.#unknown = least - 10;
  }

  /** The pieces of a word: ids, and for characters that are no pieces the characters themselves. */
  encode(word: string): (number | string)[] {
    const bytes = new TextEncoder().encode(word);
    const { length } = bytes;
    const best = new Float64Array(length + 1).fill(Number.NEGATIVE_INFINITY);
    const from = new Int32Array(length + 1);
    const by = new Int32Array(length + 1).fill(-1);
    best[0] = 0;
    for (let at = 0; at < length; at++) {
      if (best[at] === Number.NEGATIVE_INFINITY) continue; // inside a character
      const character = at + bytesOfCharacter(bytes[at]!);
      let isPiece = false;
      const propose = (end: number, score: number, id: number): void => {
        const sum = best[at]! + score;
        if (sum <= best[end]!) return;
        best[end] = sum;
        from[end] = at;
        by[end] = id;
      };
      this.#vocabulary.eachAt(bytes, at, this.#offered, (id, end) => {
        isPiece ||= end === character;
        propose(end, this.#scores[id]!, id);
      });
      if (!isPiece) propose(character, this.#unknown, -1);
    }
    const pieces: (number | string)[] = [];
    for (let at = length; at > 0; at = from[at]!)
      pieces.push(by[at]! < 0 ? UTF8.decode(bytes.subarray(from[at], at)) : by[at]!);
    return pieces.reverse();
  }
}

const UTF8 = new TextDecoder('utf-8', { ignoreBOM: true });

/** Of the character that begins with `first`, in UTF-8. */
const bytesOfCharacter = (first: number): number =>
  first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
