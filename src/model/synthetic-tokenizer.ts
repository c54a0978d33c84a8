import { type PackFile, splitFiles } from './pack-tokenizer.ts';
import { drawWords } from './synthetic-tiles.ts';
import { BYTE_CHARACTERS } from './tokenizer-pieces.ts';
import type { Merge } from './vocabulary-file.ts';

/** Bytes of the longest pieces. */
const MOST_BYTES = 12;
/** Numbers that are drawn at a time. */
const WORDS = 4096;
/** Printable ASCII, of which most bytes of pieces behind the first are. */
const FIRST_PRINTABLE = 0x21;
const PRINTABLE = 94;

export interface SyntheticTokenizer {
  readonly files: readonly PackFile[];
  /** The id that ends an answer; the last one. */
  readonly end: number;
}

/**
 * A byte-level BPE tokenizer of `tokens` tokens that are drawn: in size and numbers like those of real models, with two merges for
 * nearly every token. It has a token for each byte (as far as `tokens` allow), so any text becomes tokens and comes back.
 */
export function syntheticTokenizer(tokens: number, seed: number): SyntheticTokenizer {
  const { pieces, merges } = drawPieces(tokens - 1, seed);
  const end = { id: tokens - 1, content: '<|end|>', special: true, normalized: false };
  const json = {
    added_tokens: [end],
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, use_regex: true },
    post_processor: null,
    decoder: { type: 'ByteLevel' },
    model: {
      type: 'BPE',
      vocab: Object.fromEntries([...pieces, end.content].map((piece, id) => [piece, id])),
      merges: merges.map(([left, right]) => [pieces[left]!, pieces[right]!]),
    },
  };
  return { files: splitFiles(json), end: end.id };
}

/**
 * Bytes, then pieces that are each an earlier piece and one byte more. So are the pieces of two bytes that end them, and
 * each longer piece `abc` is made in two ways: of `ab` and `c`, and of `a` and `bc`.
 */
function drawPieces(count: number, seed: number): { pieces: string[]; merges: Merge[] } {
  const draw = drawer(seed);
  const pieces = BYTE_CHARACTERS.slice(0, count);
  const bytes = pieces.length;
  const merges: Merge[] = [];
  /** Of each piece: all but its last byte, its last byte, and how many bytes it has. */
  const starts = new Int32Array(count).fill(-1);
  const lasts = Int32Array.from({ length: count }, (_, id) => id);
  const lengths = new Uint8Array(count).fill(1);
  /** The piece of piece `start` and one byte more, by start * bytes + byte. */
  const longer = new Map<number, number>();
  while (pieces.length < count) {
    const id = pieces.length;
    const start = draw() % id;
    const byte = draw() % 8 === 0 ? draw() % bytes : (FIRST_PRINTABLE + (draw() % PRINTABLE)) % bytes;
    const pair = longer.get(lasts[start]! * bytes + byte);
    const isLong = lengths[start]! > 1;
    if (longer.has(start * bytes + byte) || lengths[start] === MOST_BYTES || (isLong && pair === undefined))
      continue;
    merges.push([start, byte, id]);
    if (isLong) merges.push([starts[start]!, pair!, id]);
    longer.set(start * bytes + byte, id);
    starts[id] = start;
    lasts[id] = byte;
    lengths[id] = lengths[start]! + 1;
    pieces.push(pieces[start]! + BYTE_CHARACTERS[byte]!);
  }
  return { pieces, merges };
}

/** Draws uint32 after uint32. */
function drawer(seed: number): () => number {
  const words = new Uint32Array(WORDS);
  drawWords(words, seed);
  let at = 0;
  return () => {
    if (at === WORDS) {
      drawWords(words, words[WORDS - 1]!);
      at = 0;
    }
    return words[at++]!;
  };
}
