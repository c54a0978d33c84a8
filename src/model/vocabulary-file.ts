import { isUtf8 } from 'node:buffer';
import { invalidPack } from '../pack/read-manifest.ts';
import { type MergeArrays, PLACES_AN_ENTRY, Vocabulary, type VocabularyArrays } from './vocabulary.ts';

/**
 * A pack's vocabulary.bin (docs/pack-format.md): header of four uint32 (kind, tokens, bytes of text, merges), then scores float64
 * [tokens] (Unigram), offsets uint32 [tokens + 1], lefts, rights and made int32 [merges] each (BPE), and the text. Little-endian;
 * every array begins at a multiple of the size of its numbers, so that it is used where it was read.
 */
export const VOCABULARY_FILE = 'vocabulary.bin';

/** Most ids of a vocabulary, and most merges. */
export const MOST_TOKENS = 2 ** 22;
const MOST_MERGES = 2 ** 24;
const HEADER_BYTES = 16;
const BPE = 1;
const UNIGRAM = 2;

/** left, right and the piece that they make: ids. */
export type Merge = readonly [left: number, right: number, made: number];

export interface VocabularyParts {
  /** By id; undefined for ids without a piece. Whole Unicode text. */
  readonly pieces: readonly (string | undefined)[];
  /** Of a Unigram model: by id, null for pieces that text never becomes. */
  readonly scores: readonly (number | null)[] | null;
  /** Of a BPE model: the lowest rank first. */
  readonly merges: readonly Merge[] | null;
}

/** The bytes of a vocabulary.bin; either scores or merges are given. */
export function vocabularyBytes({ pieces, scores, merges }: VocabularyParts): Uint8Array {
  const encoder = new TextEncoder();
  const texts = Array.from(pieces, piece => encoder.encode(piece ?? ''));
  const textBytes = texts.reduce((sum, text) => sum + text.length, 0);
  const header = [scores ? UNIGRAM : BPE, pieces.length, textBytes, merges?.length ?? 0];
  const bytes = new Uint8Array(fileBytes(header));
  new Uint32Array(bytes.buffer, 0, 4).set(header);
  const arrays = arraysOf(bytes, header);
  scores?.forEach((score, id) => {
    arrays.scores![id] = texts[id]!.length === 0 ? Number.NaN : (score ?? Number.NaN);
  });
  let end = 0;
  for (const [id, text] of texts.entries()) {
    arrays.texts.set(text, end);
    end += text.length;
    arrays.offsets[id + 1] = end;
  }
  merges?.forEach(([left, right, made], rank) => {
    arrays.merges!.lefts[rank] = left;
    arrays.merges!.rights[rank] = right;
    arrays.merges!.made[rank] = made;
  });
  return bytes;
}

/** The vocabulary in the bytes of a vocabulary.bin, which it uses in place; `file` names it. Throws PACK_INVALID. */
export function readVocabulary(bytes: Uint8Array, file: string): Vocabulary {
  const whole = bytes.byteOffset % 8 === 0 ? bytes : new Uint8Array(bytes);
  if (whole.length < HEADER_BYTES) throw invalidPack(file, 'is too short for a vocabulary');
  const header = [...new Uint32Array(whole.buffer, whole.byteOffset, 4)];
  const [kind, tokens, , merges] = header as [number, number, number, number];
  if ((kind !== BPE && kind !== UNIGRAM) || tokens > MOST_TOKENS || merges > MOST_MERGES)
    throw invalidPack(file, `does not begin as a vocabulary: ${header.join(', ')}`);
  if (kind === UNIGRAM && merges > 0) throw invalidPack(file, 'has scores and merges');
  if (fileBytes(header) !== whole.length)
    throw invalidPack(file, `has ${whole.length} bytes, not ${fileBytes(header)}`);
  const arrays = arraysOf(whole, header);
  checkTexts(arrays, file);
  if (arrays.merges) checkMerges(arrays, arrays.merges, file);
  if (arrays.scores?.some(score => Math.abs(score) === Number.POSITIVE_INFINITY))
    throw invalidPack(file, 'has an endless score');
  try {
    return new Vocabulary(arrays);
  } catch (error) {
    if (error instanceof RangeError) throw invalidPack(file, error.message, error);
    throw error;
  }
}

/** About the bytes that a vocabulary takes once it is open, at most: its file and the tables of pieces and merges. */
export function vocabularyMemory(bytes: number, tokens: number): number {
  if (bytes === 0) return 0;
  // Each piece has a byte and an offset at the least.
  const merges = Math.max(0, (bytes - 5 * tokens) / 12);
  return Math.ceil(bytes + PLACES_AN_ENTRY * 4 * (tokens + merges));
}

function fileBytes([kind, tokens, textBytes, merges]: readonly number[]): number {
  const scores = kind === UNIGRAM ? 8 * tokens! : 0;
  return HEADER_BYTES + scores + 4 * (tokens! + 1) + 12 * merges! + textBytes!;
}

function arraysOf(
  { buffer, byteOffset }: Uint8Array,
  [kind, tokens, textBytes, merges]: readonly number[],
): VocabularyArrays {
  let at = byteOffset + HEADER_BYTES;
  const take = <T>(
    Kind: new (buffer: ArrayBufferLike, at: number, length: number) => T,
    size: number,
    length: number,
  ): T => {
    const array = new Kind(buffer, at, length);
    at += size * length;
    return array;
  };
  const scores = kind === UNIGRAM ? take(Float64Array, 8, tokens!) : null;
  const offsets = take(Uint32Array, 4, tokens! + 1);
  const ids = () => take(Int32Array, 4, merges!);
  const arrays = kind === BPE ? { lefts: ids(), rights: ids(), made: ids() } : null;
  return { scores, offsets, merges: arrays, texts: take(Uint8Array, 1, textBytes!) };
}

/** Pieces lie one behind the other, and each is whole UTF-8. */
function checkTexts({ texts, offsets }: VocabularyArrays, file: string): void {
  if (offsets[0] !== 0 || offsets.at(-1) !== texts.length)
    throw invalidPack(file, 'its pieces are not as long as its text');
  for (let id = 1; id < offsets.length; id++) {
    const at = offsets[id]!;
    if (at < offsets[id - 1]! || at > texts.length)
      throw invalidPack(file, `piece ${id - 1} ends before it begins`);
    if (at < texts.length && (texts[at]! & 0xc0) === 0x80)
      throw invalidPack(file, `piece ${id} begins inside a character`);
  }
  if (!isUtf8(texts)) throw invalidPack(file, 'its text is not UTF-8');
}

/** What a merge makes is its two pieces, one behind the other. */
function checkMerges({ texts, offsets }: VocabularyArrays, merges: MergeArrays, file: string): void {
  const tokens = offsets.length - 1;
  const isId = (id: number): boolean => id >= 0 && id < tokens;
  for (let rank = 0; rank < merges.made.length; rank++) {
    const left = merges.lefts[rank]!;
    const right = merges.rights[rank]!;
    const made = merges.made[rank]!;
    if (!isId(left) || !isId(right) || !isId(made)) throw invalidPack(file, `merge ${rank} names no piece`);
    const middle = offsets[made]! + offsets[left + 1]! - offsets[left]!;
    const isJoined =
      middle + offsets[right + 1]! - offsets[right]! === offsets[made + 1]! &&
      isSame(texts, offsets[made]!, offsets[left]!, middle - offsets[made]!) &&
      isSame(texts, middle, offsets[right]!, offsets[made + 1]! - middle);
    if (!isJoined) throw invalidPack(file, `merge ${rank} does not make its piece`);
    if (offsets[left] === offsets[left + 1] || offsets[right] === offsets[right + 1])
      throw invalidPack(file, `merge ${rank} has an empty piece`);
  }
}

function isSame(texts: Uint8Array, a: number, b: number, length: number): boolean {
  for (let i = 0; i < length; i++) if (texts[a + i] !== texts[b + i]) return false;
  return true;
}
