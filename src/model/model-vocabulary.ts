import { PotluckError } from '../errors/errors.ts';
import { type Merge, MOST_TOKENS, type VocabularyParts, vocabularyBytes } from './vocabulary-file.ts';

/** The vocabulary of a tokenizer.json, apart from the rest of it. */

interface ModelJson {
  readonly type?: unknown;
  readonly vocab?: unknown;
  readonly merges?: unknown;
}

/** PACK_INVALID about a tokenizer.json. */
export const invalidTokenizer = (reason: string): PotluckError =>
  new PotluckError('PACK_INVALID', `tokenizer.json ${reason}. Write the pack again.`);

/** A tokenizer.json in two: `json` has all but vocab and merges of its model, `vocabulary` these as a vocabulary.bin. */
export interface SplitTokenizer {
  readonly json: object;
  readonly vocabulary: Uint8Array;
}

/** Throws PACK_INVALID where a part is missing or wrong, UNSUPPORTED_MODEL for a kind that is neither BPE nor Unigram. */
export function splitTokenizer(tokenizerJson: unknown): SplitTokenizer {
  const { model, ...rest } = Object(tokenizerJson) as { model?: unknown };
  if (typeof model !== 'object' || model === null) throw invalidTokenizer('has no model');
  const { vocab: _, merges: __, ...settings } = model as ModelJson;
  return { json: { ...rest, model: settings }, vocabulary: vocabularyBytes(partsOf(model)) };
}

/** Whether `model` is a Unigram model, else it is BPE. Throws UNSUPPORTED_MODEL. */
export function isUnigram({ type }: { readonly type?: unknown }, hasScores: boolean): boolean {
  if (type === 'Unigram' || (type === undefined && hasScores)) return true;
  if (type === undefined || type === 'BPE') return false;
  throw new PotluckError(
    'UNSUPPORTED_MODEL',
    `The tokenizer is of kind ${String(type).slice(0, 50)}. Use a model with a BPE or Unigram tokenizer.`,
  );
}

const partsOf = (model: ModelJson): VocabularyParts =>
  isUnigram(model, Array.isArray(model.vocab)) ? unigramParts(model) : bpeParts(model);

function unigramParts({ vocab }: ModelJson): VocabularyParts {
  if (!Array.isArray(vocab) || vocab.length > MOST_TOKENS) throw invalidTokenizer('has no list of pieces');
  const entries = vocab.map((entry: unknown) => {
    const [text, score] = Array.isArray(entry) ? (entry as unknown[]) : [];
    if (typeof text !== 'string' || !(score === null || Number.isFinite(score)))
      throw invalidTokenizer('has a piece without text or score');
    return { text: checkedText(text), score: score as number | null };
  });
  return { pieces: entries.map(({ text }) => text), scores: entries.map(({ score }) => score), merges: null };
}

function bpeParts({ vocab, merges }: ModelJson): VocabularyParts {
  if (typeof vocab !== 'object' || vocab === null || !Array.isArray(merges))
    throw invalidTokenizer('has no vocab or no merges');
  const ids = new Map<string, number>();
  const pieces: (string | undefined)[] = [];
  for (const [piece, id] of Object.entries(vocab as Record<string, unknown>)) {
    if (!isId(id)) throw invalidTokenizer(`has the id ${String(id).slice(0, 50)} in its vocab`);
    if (pieces[id] !== undefined) throw invalidTokenizer(`has two pieces of id ${id}`);
    pieces[id] = checkedText(piece);
    ids.set(piece, id);
  }
  return { pieces, scores: null, merges: [...mergesOf(merges, ids)] };
}

/** Merges whose parts or whole are no pieces are left out. */
function* mergesOf(merges: readonly unknown[], ids: ReadonlyMap<string, number>): Iterable<Merge> {
  for (const merge of merges) {
    const [first, second] = pairOf(merge);
    const left = ids.get(first);
    const right = ids.get(second);
    const made = ids.get(first + second);
    if (first === '' || second === '') continue;
    if (left !== undefined && right !== undefined && made !== undefined) yield [left, right, made];
  }
}

/** Merges are written as `left right`, or as lists of two. */
function pairOf(merge: unknown): readonly [string, string] {
  const parts: unknown = typeof merge === 'string' ? splitOnce(merge) : merge;
  if (Array.isArray(parts) && parts.length === 2 && parts.every(part => typeof part === 'string'))
    return parts as [string, string];
  throw invalidTokenizer('has a merge that is not of two pieces');
}

function splitOnce(merge: string): readonly string[] {
  const space = merge.indexOf(' ');
  return [merge.slice(0, space), merge.slice(space + 1)];
}

const isId = (id: unknown): id is number =>
  Number.isSafeInteger(id) && Number(id) >= 0 && Number(id) < MOST_TOKENS;

const HALF_CHARACTER = /\p{Surrogate}/u;

function checkedText(piece: string): string {
  if (HALF_CHARACTER.test(piece)) throw invalidTokenizer('has a piece that ends inside a character');
  return piece;
}
