import fc from 'fast-check';
import { expect, test } from 'vitest';
import { UnigramPieces } from '../../src/model/unigram-pieces.ts';

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
        const got = new UnigramPieces(list.map(([text, score]) => ({ text, score }))).encode(word);
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
  const pieces = new UnigramPieces([{ text: 'a', score: -1 }, { text: 'b', score: -1 }, null]);
  expect(pieces.encode('ab')).toEqual([0, 1]);
});
