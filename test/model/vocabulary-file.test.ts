import fc from 'fast-check';
import { expect, test } from 'vitest';
import { readVocabulary, type VocabularyParts, vocabularyBytes } from '../../src/model/vocabulary-file.ts';

const BPE: VocabularyParts = {
  pieces: ['a', 'é', 'aé', undefined, '😀'],
  scores: null,
  merges: [[0, 1, 2]],
};
const UNIGRAM: VocabularyParts = { pieces: ['a', '', 'b'], scores: [-1.5, 0, null], merges: null };

const refused = { code: 'PACK_INVALID', message: expect.stringContaining('x: ') };

/** The uint32 of BPE, by name; its text is behind them. */
const WORD = { kind: 0, tokens: 1, textBytes: 2, merges: 3, offsets: 4, left: 10, right: 11, made: 12 };
const TEXT = 13 * 4;

function changed(change: (words: Uint32Array, bytes: Uint8Array) => void): Uint8Array {
  const bytes = vocabularyBytes(BPE);
  change(new Uint32Array(bytes.buffer, 0, 13), bytes);
  return bytes;
}

test('what is written is read', () => {
  const bpe = readVocabulary(vocabularyBytes(BPE), 'x');
  expect(BPE.pieces.map((_, id) => bpe.piece(id))).toEqual(BPE.pieces);
  expect(bpe.arrays.merges).toEqual({
    lefts: Int32Array.of(0),
    rights: Int32Array.of(1),
    made: Int32Array.of(2),
  });
  expect(bpe.arrays.scores).toBeNull();
  const unigram = readVocabulary(vocabularyBytes(UNIGRAM), 'x');
  expect([...unigram.arrays.scores!]).toEqual([-1.5, Number.NaN, Number.NaN]);
  expect(unigram.arrays.merges).toBeNull();
  expect(unigram.find('')).toBeUndefined();
});

test('its arrays lie in the bytes that were read, wherever these begin', () => {
  const bytes = vocabularyBytes(UNIGRAM);
  expect(readVocabulary(bytes, 'x').arrays.scores!.buffer).toBe(bytes.buffer);
  const odd = new Uint8Array(bytes.length + 3);
  odd.set(bytes, 3);
  expect(readVocabulary(odd.subarray(3), 'x').arrays.texts).toEqual(readVocabulary(bytes, 'x').arrays.texts);
});

test.each<[string, (words: Uint32Array, bytes: Uint8Array) => void]>([
  ['of no known kind', words => words.fill(3, WORD.kind, 1)],
  ['of the other kind', words => words.fill(2, WORD.kind, 1)],
  ['of endless tokens', words => words.fill(0xffffffff, WORD.tokens, 2)],
  ['of more tokens than it has', words => words.fill(6, WORD.tokens, 2)],
  ['of endless text', words => words.fill(0xffffffff, WORD.textBytes, 3)],
  ['of endless merges', words => words.fill(0xffffffff, WORD.merges, 4)],
  ['with a first piece that begins late', words => words.fill(1, WORD.offsets, WORD.offsets + 1)],
  ['with a piece of negative length', words => words.fill(0, WORD.offsets + 2, WORD.offsets + 3)],
  ['with a piece that ends outside', words => words.fill(99, WORD.offsets + 3, WORD.offsets + 4)],
  ['with a last piece that ends early', words => words.fill(9, WORD.offsets + 5, WORD.offsets + 6)],
  ['with a piece that begins inside a character', words => words.fill(2, WORD.offsets + 1, WORD.offsets + 2)],
  ['with text that is not UTF-8', (_, bytes) => bytes.fill(0xff, TEXT, TEXT + 1)],
  ['with a merge of an id that is not there', words => words.fill(5, WORD.left, WORD.left + 1)],
  ['with a merge of a negative id', words => words.fill(-1, WORD.right, WORD.right + 1)],
  ['with a merge into no id', words => words.fill(5, WORD.made, WORD.made + 1)],
  ['with a merge of an empty piece', words => words.set([0, 3, 0], WORD.left)],
  ['with a merge into another piece', words => words.fill(1, WORD.left, WORD.left + 1)],
  ['with a merge into a shorter piece', words => words.fill(0, WORD.made, WORD.made + 1)],
])('refuses a file %s', (_, change) => {
  expect(() => readVocabulary(changed(change), 'x')).toThrow(expect.objectContaining(refused));
});

test('refuses endless scores', () => {
  const bytes = vocabularyBytes(UNIGRAM);
  new Float64Array(bytes.buffer, 16, 1)[0] = Number.NEGATIVE_INFINITY;
  expect(() => readVocabulary(bytes, 'x')).toThrow(expect.objectContaining(refused));
});

test('refuses every file that was cut off or is longer', () => {
  for (const parts of [BPE, UNIGRAM]) {
    const bytes = vocabularyBytes(parts);
    for (let length = 0; length < bytes.length; length++)
      expect(() => readVocabulary(bytes.slice(0, length), 'x')).toThrow(expect.objectContaining(refused));
    expect(() => readVocabulary(Uint8Array.of(...bytes, 0), 'x')).toThrow(expect.objectContaining(refused));
  }
});

test('any bytes are refused, or are a vocabulary that answers', () => {
  const flip = fc.record({ at: fc.nat(), to: fc.integer({ min: 0, max: 255 }) });
  fc.assert(
    fc.property(fc.constantFrom(BPE, UNIGRAM), fc.array(flip, { maxLength: 4 }), (parts, flips) => {
      const bytes = vocabularyBytes(parts);
      for (const { at, to } of flips) bytes[at % bytes.length] = to;
      try {
        const read = readVocabulary(bytes, 'x');
        for (let id = 0; id < read.tokens; id++) {
          const piece = read.piece(id);
          if (piece !== undefined) expect(read.piece(read.find(piece)!)).toBe(piece);
        }
      } catch (error) {
        expect(error).toMatchObject({ code: 'PACK_INVALID' });
      }
    }),
    { numRuns: 1000 },
  );
});
