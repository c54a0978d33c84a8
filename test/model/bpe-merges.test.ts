import fc from 'fast-check';
import { expect, test } from 'vitest';
import { BpeMerges } from '../../src/model/bpe-merges.ts';
import { splitTokenizer } from '../../src/model/model-vocabulary.ts';
import { readVocabulary } from '../../src/model/vocabulary-file.ts';

type Pairs = readonly (readonly [string, string])[];

/** Ids are places in `pieces`. */
function bpe(pieces: readonly string[], merges: Pairs, hidden: readonly number[] = []): BpeMerges {
  const vocab = Object.fromEntries(pieces.map((piece, id) => [piece, id]));
  const { vocabulary } = splitTokenizer({ model: { type: 'BPE', vocab, merges } });
  const read = readVocabulary(vocabulary, 'x');
  return new BpeMerges(read, read.arrays.merges!, new Set(hidden));
}

/** The definition: again and again the leftmost of the pairs with the lowest rank. */
function plainMerge(word: string, merges: Pairs): string[] {
  const parts = Array.from(word);
  for (;;) {
    let best = -1;
    let rank = Number.POSITIVE_INFINITY;
    for (let i = 0; i + 1 < parts.length; i++) {
      const found = merges.findLastIndex(([left, right]) => left === parts[i] && right === parts[i + 1]);
      if (found >= 0 && found < rank) {
        rank = found;
        best = i;
      }
    }
    if (best < 0) return parts;
    parts.splice(best, 2, parts[best]! + parts[best + 1]!);
  }
}

const letters = fc.string({ unit: fc.constantFrom('a', 'b', 'c', '😀'), minLength: 1, maxLength: 4 });

test('gives what merging pair by pair gives, whatever the list', () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(letters, letters), { maxLength: 30 }),
      fc.string({ unit: fc.constantFrom('a', 'b', 'c', '😀', 'x'), maxLength: 40 }),
      (merges, word) => {
        const pieces = [...new Set(['a', 'b', 'c', '😀', ...merges.flatMap(([l, r]) => [l, r, l + r])])];
        const got = bpe(pieces, merges).encode(word);
        expect(got.map(piece => (typeof piece === 'number' ? pieces[piece] : piece))).toEqual(
          plainMerge(word, merges),
        );
      },
    ),
    { numRuns: 300 },
  );
});

test('what is no piece stays as its characters; merges of unknown parts are left out', () => {
  const merges = bpe(['a', 'ab'], [['a', 'b']]);
  expect(merges.encode('ab😀')).toEqual([0, 'b', '😀']);
  expect(merges.encode('')).toEqual([]);
});

test('a word of a million characters is done in steps that do not grow with it', () => {
  const pieces = ['a', 'aa', 'aaaa', 'aaaaaaaa'];
  const merges = bpe(pieces, [
    ['a', 'a'],
    ['aa', 'aa'],
    ['aaaa', 'aaaa'],
  ]);
  const got = merges.encode('a'.repeat(1_000_001));
  expect(got).toHaveLength(125_001);
  expect(got.slice(-2)).toEqual([3, 0]);
});

test('hidden pieces are neither found nor made', () => {
  const pieces = ['a', 'b', 'ab', 'aba'];
  const pairs: Pairs = [
    ['a', 'b'],
    ['ab', 'a'],
  ];
  expect(bpe(pieces, pairs).encode('aba')).toEqual([3]);
  expect(bpe(pieces, pairs, [3]).encode('aba')).toEqual([2, 0]);
  expect(bpe(pieces, pairs, [2]).encode('aba')).toEqual([0, 1, 0]);
  expect(bpe(pieces, pairs, [1]).encode('aba')).toEqual([0, 'b', 0]);
});
