import { LRUCache } from 'lru-cache';
import { PotluckError } from '../errors/errors.ts';
import { BpeMerges } from './bpe-merges.ts';
import { UnigramPieces } from './unigram-pieces.ts';

/** The `model` of a tokenizer.json: what makes pieces of words. */
export interface TokenModel {
  /** Appends the ids of a word to `ids`. */
  encode(word: string, ids: number[]): void;
  /** The text of each id; undefined for those that are none. */
  readonly pieces: readonly (string | undefined)[];
}

interface ModelJson {
  readonly type?: unknown;
  readonly vocab?: unknown;
  readonly merges?: unknown;
  readonly unk_token?: unknown;
  readonly unk_id?: unknown;
  readonly fuse_unk?: unknown;
  readonly byte_fallback?: unknown;
  readonly ignore_merges?: unknown;
  readonly continuing_subword_prefix?: unknown;
  readonly end_of_word_suffix?: unknown;
}

/** Most tokens, and words that are remembered; longer ones are not. */
const MOST_TOKENS = 2 ** 22;
const REMEMBERED_WORDS = 10_000;
const REMEMBERED_LENGTH = 64;

/**
 * `notFromText`: ids that no text becomes by itself: control tokens. Throws PACK_INVALID where a part is missing or wrong,
 * UNSUPPORTED_MODEL for a kind that is neither BPE nor Unigram.
 */
export function createTokenModel(model: unknown, notFromText: ReadonlySet<number>): TokenModel {
  if (typeof model !== 'object' || model === null) throw invalid('has no model');
  const json = model as ModelJson;
  if (json.type === 'Unigram' || (json.type === undefined && Array.isArray(json.vocab)))
    return unigramModel(json, notFromText);
  if (json.type === undefined || json.type === 'BPE') return bpeModel(json, notFromText);
  throw new PotluckError(
    'UNSUPPORTED_MODEL',
    `The tokenizer is of kind ${String(json.type).slice(0, 50)}. Use a model with a BPE or Unigram tokenizer.`,
  );
}

const invalid = (reason: string): PotluckError =>
  new PotluckError('PACK_INVALID', `tokenizer.json ${reason}. Write the pack again.`);

function bpeModel(json: ModelJson, notFromText: ReadonlySet<number>): TokenModel {
  if (typeof json.vocab !== 'object' || json.vocab === null || !Array.isArray(json.merges))
    throw invalid('has no vocab or no merges');
  if (json.continuing_subword_prefix || json.end_of_word_suffix)
    throw new PotluckError(
      'UNSUPPORTED_MODEL',
      'The tokenizer marks the parts of words by prefixes or suffixes. Use a model with a byte-level or SentencePiece tokenizer.',
    );
  const pieces: (string | undefined)[] = [];
  const ids = new Map<string, number>();
  for (const [piece, id] of Object.entries(json.vocab as Record<string, unknown>)) {
    if (!isId(id)) throw invalid(`has the id ${String(id).slice(0, 50)} in its vocab`);
    pieces[id] = piece;
    if (!notFromText.has(id)) ids.set(piece, id);
  }
  const unknown =
    typeof json.unk_token === 'string'
      ? ((json.vocab as Record<string, number>)[json.unk_token] ?? null)
      : null;
  const merges = new BpeMerges(ids, pairsOf(json.merges), json.merges.length);
  const ignoresMerges = json.ignore_merges === true;
  return {
    pieces,
    encode: remembering(
      word => {
        const whole = ignoresMerges ? ids.get(word) : undefined;
        return whole === undefined ? merges.encode(word) : [whole];
      },
      { bytes: byteIds(json, pieces), unknown, fuses: json.fuse_unk === true },
    ),
  };
}

function unigramModel(json: ModelJson, notFromText: ReadonlySet<number>): TokenModel {
  const { vocab, unk_id: unknown } = json;
  if (!Array.isArray(vocab) || vocab.length > MOST_TOKENS) throw invalid('has no list of pieces');
  const entries = vocab.map((entry: unknown) => {
    const [text, score] = Array.isArray(entry) ? (entry as unknown[]) : [];
    if (typeof text !== 'string' || (score !== null && typeof score !== 'number'))
      throw invalid('has a piece without text or score');
    return { text, score };
  });
  const pieces = entries.map(({ text }) => text);
  const bytes = byteIds(json, pieces);
  const hidden = new Set([...notFromText, ...(bytes ?? [])]);
  const segmentation = new UnigramPieces(
    entries.map(({ text, score }, id) => (score === null || hidden.has(id) ? null : { text, score })),
  );
  return {
    pieces,
    encode: remembering(word => segmentation.encode(word), {
      bytes,
      unknown: isId(unknown) ? unknown : null,
      fuses: true,
    }),
  };
}

const isId = (id: unknown): id is number =>
  Number.isSafeInteger(id) && Number(id) >= 0 && Number(id) < MOST_TOKENS;

/** Merges are written as `left right`, or as lists of two. */
function* pairsOf(merges: readonly unknown[]): Iterable<readonly [string, string]> {
  for (const merge of merges) {
    const parts: unknown = typeof merge === 'string' ? splitOnce(merge) : merge;
    if (
      !Array.isArray(parts) ||
      parts.length !== 2 ||
      typeof parts[0] !== 'string' ||
      typeof parts[1] !== 'string'
    )
      throw invalid('has a merge that is not of two pieces');
    yield [parts[0], parts[1]];
  }
}

function splitOnce(merge: string): readonly string[] {
  const space = merge.indexOf(' ');
  return [merge.slice(0, space), merge.slice(space + 1)];
}

/** Ids of `<0x00>` to `<0xFF>`, where characters that are no pieces become bytes; else null. */
function byteIds(json: ModelJson, pieces: readonly (string | undefined)[]): readonly number[] | null {
  if (json.byte_fallback !== true) return null;
  const names = Array.from(
    { length: 256 },
    (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`,
  );
  const places = new Map(pieces.map((piece, id) => [piece, id]));
  const ids = names.flatMap(name => places.get(name) ?? []);
  return ids.length === names.length ? ids : null;
}

interface Fallback {
  readonly bytes: readonly number[] | null;
  readonly unknown: number | null;
  /** Several unknown characters in a row are one unknown token. */
  readonly fuses: boolean;
}

/** `encode` with fallbacks for what is no piece, and a memory of words. */
function remembering(
  encode: (word: string) => readonly (number | string)[],
  fallback: Fallback,
): TokenModel['encode'] {
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
