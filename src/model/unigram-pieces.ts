/**
 * Unigram segmentation (Kudo 2018, arXiv 1804.10959): of all ways to cut a word into pieces, the one with the greatest sum of
 * scores, found in one pass. Time is linear in the length of a word times that of the longest piece.
 */
export class UnigramPieces {
  readonly #ids = new Map<string, number>();
  readonly #scores: Float64Array;
  readonly #longest: number;
  /** Of a character that is no piece: ten under the least score, as SentencePiece has it. */
  readonly #unknown: number;

  /** `pieces`: text and score of each id; null for those that text never becomes. */
  constructor(pieces: readonly ({ readonly text: string; readonly score: number } | null)[]) {
    this.#scores = Float64Array.from(pieces, piece => piece?.score ?? 0);
    let longest = 1;
    let least = 0;
    for (const [id, piece] of pieces.entries()) {
      if (piece === null || piece.text === '') continue;
      if (!this.#ids.has(piece.text)) this.#ids.set(piece.text, id);
      longest = Math.max(longest, piece.text.length);
      least = Math.min(least, piece.score);
    }
    this.#longest = longest;
    this.#unknown = least - 10;
  }

  /** The pieces of a word: ids, and for characters that are no pieces the characters themselves. */
  encode(word: string): (number | string)[] {
    const { length } = word;
    const best = new Float64Array(length + 1).fill(Number.NEGATIVE_INFINITY);
    const from = new Int32Array(length + 1);
    const by = new Int32Array(length + 1).fill(-1);
    best[0] = 0;
    for (let at = 0; at < length; at++) {
      if (best[at] === Number.NEGATIVE_INFINITY) continue; // inside a character
      const character = word.codePointAt(at)! > 0xffff ? 2 : 1;
      let isPiece = false;
      const propose = (size: number, score: number, id: number): void => {
        const sum = best[at]! + score;
        if (sum <= best[at + size]!) return;
        best[at + size] = sum;
        from[at + size] = at;
        by[at + size] = id;
      };
      for (let size = character; size <= this.#longest && at + size <= length; size++) {
        const id = this.#ids.get(word.slice(at, at + size));
        if (id === undefined) continue;
        isPiece ||= size === character;
        propose(size, this.#scores[id]!, id);
      }
      if (!isPiece) propose(character, this.#unknown, -1);
    }
    const pieces: (number | string)[] = [];
    for (let at = length; at > 0; at = from[at]!)
      pieces.push(by[at]! < 0 ? word.slice(from[at]!, at) : by[at]!);
    return pieces.reverse();
  }
}
