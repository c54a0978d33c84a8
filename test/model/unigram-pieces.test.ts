import fc from 'fast-check';
import { expect, test } from 'vitest';
import { UnigramPieces } from '../../src/model/unigram-pieces.ts';
import { readVocabulary, vocabularyBytes } from '../../src/model/vocabulary-file.ts';

/** Ids are places in `list`; null is a score of a piece that text never becomes. */
function unigram(list: readonly (readonly [string, number | null])[], hidden: readonly number[] = []) {
  const parts = { pieces: list.map(([text]) => text), scores: list.map(([, score]) => score), merges: null };
  const vocabulary = readVocabulary(vocabularyBytes(parts), 'x');
  return new UnigramPieces(vocabulary, vocabulary.arrays.scores!, new Set(hidden));
}

/** The greatest sum of scores of all ways to cut a word; characters that are no pieces cost `unknown`. */
function bestSum(word: readonly string[], scores: ReadonlyMap<string, number>, unknown: number): number {
  if (word.length === 0) return 0;
  let best = Number.NEGATIVE_INFINITY;
  for (let size = 1; size <= word.length; size++) {
    const piece = word.slice(0, size).join('');
    const score = scores.get(piece) ?? (size === 1 ? unknown : undefined);
    if (score !== undefined) best = Math.max(best, score + bestSum(word.slice(size), scores, unknown));
  }
  return best;
}

test('finds the greatest sum, and its pieces are the word', () => {
  const piece = fc.string({ unit: fc.constantFrom('a', 'b', '😀'), minLength: 1, maxLength: 3 });
  fc.assert(
    fc.property(
      fc.uniqueArray(fc.tuple(piece, fc.integer({ min: -20, max: 0 })), {
        selector: ([text]) => text,
        maxLength: 8,
      }),
      fc.string({ unit: fc.constantFrom('a', 'b', '😀', 'x'), maxLength: 8 }),
      (list, word) => {
        const scores = new Map(list);
        const unknown = Math.min(0, ...scores.values()) - 10;
        const got = unigram(list).encode(word);
        const texts = got.map(one => (typeof one === 'number' ? list[one]![0] : one));
        expect(texts.join('')).toBe(word);
        const sum = got.reduce<number>(
          (s, one) => s + (typeof one === 'number' ? list[one]![1] : unknown),
          0,
        );
        expect(sum).toBe(bestSum(Array.from(word), scores, unknown));
      },
    ),
    { numRuns: 300 },
  );
});

test('hidden pieces are not found', () => {
  const list = [
    ['a', -1],
    ['b', -1],
    ['ab', null],
    ['ba', -1],
    ['a', -9],
  ] as const;
  expect(unigram(list).encode('ab')).toEqual([0, 1]);
  expect(unigram(list).encode('ba')).toEqual([3]);
  expect(unigram(list, [3]).encode('ba')).toEqual([1, 0]);
  // of two ids of one text the other one is found
  expect(unigram(list, [0]).encode('ab')).toEqual([4, 1]);
  expect(unigram(list).encode('a\ufeff😀b')).toEqual([0, '\ufeff', '😀', 1]);
});
