import { LRUCache } from 'lru-cache';
import { PotluckError } from '../errors/errors.ts';
import { BpeMerges } from './bpe-merges.ts';
import { invalidTokenizer, isUnigram } from './model-vocabulary.ts';
import { UnigramPieces } from './unigram-pieces.ts';
import type { MergeArrays, Vocabulary } from './vocabulary.ts';

/** Appends the ids of a word to `ids`. */
export type EncodeWord = (word: string, ids: number[]) => void;

interface ModelJson {
  readonly type?: unknown;
  readonly unk_token?: unknown;
  readonly unk_id?: unknown;
  readonly fuse_unk?: unknown;
  readonly byte_fallback?: unknown;
  readonly ignore_merges?: unknown;
  readonly continuing_subword_prefix?: unknown;
  readonly end_of_word_suffix?: unknown;
}

/** Words that are remembered; longer ones are not. */
const REMEMBERED_WORDS = 10_000;
const REMEMBERED_LENGTH = 64;

/**
 * What makes pieces of words: the `model` of a tokenizer.json, whose vocab and merges are `vocabulary`. `notFromText`: ids that no
 * text becomes by itself: control tokens. Throws PACK_INVALID where a part is missing or wrong, UNSUPPORTED_MODEL for a kind that
 * is neither BPE nor Unigram.
 */
export function createTokenModel(
  model: unknown,
  vocabulary: Vocabulary,
  notFromText: ReadonlySet<number>,
): EncodeWord {
  if (typeof model !== 'object' || model === null) throw invalidTokenizer('has no model');
  const json = model as ModelJson;
  const { scores, merges } = vocabulary.arrays;
  const unigram = isUnigram(json, scores !== null);
  if (unigram && scores !== null) return unigramModel(json, vocabulary, scores, notFromText);
  if (!unigram && merges !== null) return bpeModel(json, vocabulary, merges, notFromText);
  throw invalidTokenizer('is of another kind than its vocabulary');
}

function bpeModel(
  json: ModelJson,
  vocabulary: Vocabulary,
  merges: MergeArrays,
  notFromText: ReadonlySet<number>,
): EncodeWord {
  if (json.continuing_subword_prefix || json.end_of_word_suffix)
    throw new PotluckError(
      'UNSUPPORTED_MODEL',
      'The tokenizer marks the parts of words by prefixes or suffixes. Use a model with a byte-level or SentencePiece tokenizer.',
    );
  const { unk_token: unknown } = json;
  const bpe = new BpeMerges(vocabulary, merges, notFromText);
  const ignoresMerges = json.ignore_merges === true;
  const fromText = (id: number): boolean => !notFromText.has(id);
  return remembering(
    word => {
      const whole = ignoresMerges ? vocabulary.find(word, fromText) : undefined;
      return whole === undefined ? bpe.encode(word) : [whole];
    },
    {
      bytes: byteIds(json, vocabulary),
      unknown: typeof unknown === 'string' ? (vocabulary.find(unknown) ?? null) : null,
      fuses: json.fuse_unk === true,
    },
  );
}

function unigramModel(
  json: ModelJson,
  vocabulary: Vocabulary,
  scores: Float64Array,
  notFromText: ReadonlySet<number>,
): EncodeWord {
  const { unk_id: unknown } = json;
  const bytes = byteIds(json, vocabulary);
  const unigram = new UnigramPieces(vocabulary, scores, new Set([...notFromText, ...(bytes ?? [])]));
  return remembering(word => unigram.encode(word), {
    bytes,
    unknown: Number.isSafeInteger(unknown) && Number(unknown) >= 0 ? Number(unknown) : null,
    fuses: true,
  });
}

/** Ids of `<0x00>` to `<0xFF>`, where characters that are no pieces become bytes; else null. */
function byteIds(json: ModelJson, vocabulary: Vocabulary): readonly number[] | null {
  if (json.byte_fallback !== true) return null;
  const names = Array.from(
    { length: 256 },
    (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`,
  );
  const ids = names.flatMap(name => vocabulary.find(name) ?? []);
  return ids.length === names.length ? ids : null;
}

interface Fallback {
  readonly bytes: readonly number[] | null;
  readonly unknown: number | null;
  /** Several unknown characters in a row are one unknown token. */
  readonly fuses: boolean;
}

/** `encode` with fallbacks for what is no piece, and a memory of words. */
function remembering(encode: (word: string) => readonly (number | string)[], fallback: Fallback): EncodeWord {
  const words = new LRUCache<string, readonly number[]>({ max: REMEMBERED_WORDS });
  return (word, ids) => {
    const known = words.get(word);
    const found = known ?? resolve(encode(word), fallback);
    if (known === undefined && word.length <= REMEMBERED_LENGTH) words.set(word, found);
    for (const id of found) ids.push(id);
  };
}

function resolve(
  pieces: readonly (number | string)[],
  { bytes, unknown, fuses }: Fallback,
): readonly number[] {
  const ids: number[] = [];
  let afterUnknown = false;
  for (const piece of pieces) {
    if (typeof piece === 'number') {
      ids.push(piece);
      afterUnknown = false;
    } else if (bytes !== null) {
      for (const byte of new TextEncoder().encode(piece)) ids.push(bytes[byte]!);
    } else if (unknown !== null) {
      if (!(fuses && afterUnknown)) ids.push(unknown);
      afterUnknown = true;
    }
  }
  return ids;
}
