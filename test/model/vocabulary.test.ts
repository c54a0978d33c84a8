import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Vocabulary } from '../../src/model/vocabulary.ts';
import { readVocabulary, vocabularyBytes } from '../../src/model/vocabulary-file.ts';

const unit = fc.constantFrom(
  'a',
  'b',
  '\u0000',
  'é',
  '\u2581',
  '\ufeff',
  '\ufffd',
  '\uffff',
  '😀',
  '\u{10ffff}',
);
const text = fc.oneof(
  fc.string({ unit, maxLength: 5 }),
  fc.string({ unit: 'binary', maxLength: 4 }),
  fc.constantFrom('\ud800', 'a\udc00', '\ud83d', 'constructor', '__proto__'),
);
const whole = text.filter(piece => piece !== '' && !/\p{Surrogate}/u.test(piece));

const vocabulary = (pieces: readonly (string | undefined)[]) =>
  readVocabulary(vocabularyBytes({ pieces, scores: null, merges: [] }), 'x');

test('finds exactly what a Map finds, and gives its texts back', () => {
  fc.assert(
    fc.property(
      fc.array(fc.option(whole, { nil: undefined }), { maxLength: 60 }),
      fc.array(text, { maxLength: 60 }),
      fc.func(fc.boolean()),
      (pieces, others, offered) => {
        const found = vocabulary(pieces);
        const first = (accepts: (id: number) => boolean) => {
          const map = new Map<string, number>();
          for (const [id, piece] of pieces.entries())
            if (piece !== undefined && accepts(id) && !map.has(piece)) map.set(piece, id);
          return map;
        };
        const all = first(() => true);
        const some = first(offered);
        for (const piece of [...all.keys(), ...others, [...all.keys()].join('')]) {
          expect(found.find(piece)).toBe(all.get(piece));
          expect(found.find(piece, offered)).toBe(some.get(piece));
        }
        expect(pieces.map((_, id) => found.piece(id))).toEqual(pieces);
        expect(found.tokens).toBe(pieces.length);
        expect(found.longest).toBe(Math.max(0, ...pieces.map(piece => piece?.length ?? 0)));
        for (const id of [-1, pieces.length, 0.5, Number.NaN]) expect(found.piece(id)).toBeUndefined();
      },
    ),
    { numRuns: 300 },
  );
});

test('finds the pieces that a text has at a place, the shortest first', () => {
  fc.assert(
    fc.property(
      fc.uniqueArray(whole, { maxLength: 30 }),
      fc.array(whole, { maxLength: 8 }),
      (pieces, parts) => {
        const found = vocabulary(pieces);
        const characters = Array.from(parts.join(''));
        for (let at = 0; at < characters.length; at++) {
          const got: [number, number][] = [];
          const bytes = Buffer.from(characters.join(''));
          const from = Buffer.byteLength(characters.slice(0, at).join(''));
          found.eachAt(
            bytes,
            from,
            id => id !== 3,
            (id, end) => got.push([id, end]),
          );
          const expected: [number, number][] = [];
          for (let end = at + 1; end <= characters.length; end++) {
            const id = pieces.indexOf(characters.slice(at, end).join(''));
            if (id >= 0 && id !== 3)
              expected.push([id, Buffer.byteLength(characters.slice(0, end).join(''))]);
          }
          expect(got).toEqual(expected);
        }
      },
    ),
  );
});

test('a large vocabulary has every piece', () => {
  const pieces = Array.from({ length: 50_000 }, (_, id) => (id % 7 === 0 ? undefined : `p${id * 7919}`));
  const found = vocabulary(pieces);
  for (const [id, piece] of pieces.entries()) if (piece !== undefined) expect(found.find(piece)).toBe(id);
  expect(found.find('p1')).toBeUndefined();
});

test('thousands of equal pieces are refused, since they would be tried one after another', () => {
  const texts = new Uint8Array(10_000).fill(97);
  const offsets = Uint32Array.from({ length: 10_001 }, (_, id) => id);
  expect(() => new Vocabulary({ texts, offsets, scores: null, merges: null })).toThrow(/collide/);
});
