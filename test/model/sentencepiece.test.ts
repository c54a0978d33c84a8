import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { openCheckpoint } from '../../src/model/checkpoint.ts';
import { openTokenizer } from '../../src/model/open-tokenizer.ts';
import { tokenizerOfJson } from '../../src/model/pack-tokenizer.ts';
import { TokenKind } from '../../src/model/scored-tokenizer.ts';
import { sentencePieceTokenizer } from '../../src/model/sentencepiece.ts';
import { temporaryFolder } from '../pack/temporary-folder.ts';
import { writeCheckpoint } from './small-checkpoint.ts';

/** Bytes of a protocol buffer: a number (varint), a float, or bytes, by field number. */
type ProtoField = readonly [number: number, value: number | { readonly float: number } | Uint8Array];

function proto(...fields: ProtoField[]): Uint8Array {
  const varint = (value: number): number[] =>
    value < 128 ? [value] : [(value % 128) | 128, ...varint(Math.floor(value / 128))];
  const bytes: number[] = [];
  for (const [number, value] of fields) {
    if (typeof value === 'number') bytes.push(...varint(number * 8), ...varint(value));
    else if (value instanceof Uint8Array)
      bytes.push(...varint(number * 8 + 2), ...varint(value.length), ...value);
    else bytes.push(...varint(number * 8 + 5), ...new Uint8Array(Float32Array.of(value.float).buffer));
  }
  return Uint8Array.from(bytes);
}

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
const piece = (text: string, score: number, kind: number = TokenKind.Normal): ProtoField => [
  1,
  proto([1, utf8(text)], [2, { float: score }], [3, kind]),
];

const SPECIAL = [
  piece('<unk>', 0, TokenKind.Unknown),
  piece('<s>', 0, TokenKind.Control),
  piece('</s>', 0, TokenKind.Control),
];
const BYTES = Array.from({ length: 256 }, (_, byte) =>
  piece(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`, 0, TokenKind.Byte),
);
const LETTERS = [...'▁abcdefgh'].map((text, i) => piece(text, -10 - i));
const BPE = proto(
  ...SPECIAL,
  ...BYTES,
  piece('<user>', 0, TokenKind.UserDefined),
  piece('▁a', -1),
  piece('bc', -2),
  piece('abc', -3),
  piece('▁abc', -4),
  piece('fg', -4.5),
  piece('ef', -5),
  ...LETTERS,
  [2, proto([3, 2], [41, 1])],
  [3, proto([1, utf8('identity')], [3, 1], [4, 0])],
);

const pieces = (model: Uint8Array, text: string): string[] => {
  const tokenizer = tokenizerOfJson(sentencePieceTokenizer(model, 'tokenizer.model'), {});
  return tokenizer
    .encode(text, { special: false })
    .map(id => new TextDecoder().decode(tokenizer.pieceBytes(id)));
};

test('BPE: the best score is merged first, spaces lead, bytes stand for what is no piece', () => {
  expect(pieces(BPE, 'abc')).toEqual([' abc']);
  expect(pieces(BPE, 'd abc')).toEqual([' ', 'd', ' abc']);
  expect(pieces(BPE, 'efg')).toEqual([' ', 'e', 'fg']);
  const euro = pieces(BPE, '€');
  expect(euro).toHaveLength(4);
});

test('control pieces are text in texts; pieces of the user are found in them', () => {
  const tokenizer = tokenizerOfJson(sentencePieceTokenizer(BPE, 'x'), {});
  expect([...tokenizer.controls.keys()]).toEqual(['<unk>', '<s>', '</s>']);
  expect(tokenizer.encode('<s>', { special: false })).not.toContain(1);
  expect(tokenizer.encode('<s>', { special: true })).toEqual([1]);
  expect(tokenizer.encode('<user>', { special: false })).toEqual([259]);
});

test('Unigram: the likeliest pieces; text that spells a byte or a control piece becomes neither', () => {
  const unigram = proto(
    ...SPECIAL,
    ...BYTES,
    piece('▁ab', -1),
    piece('cd', -1),
    piece('bcd', -1.5),
    ...[...'▁abcd<>s0x4/'].map(text => piece(text, -5)),
    [2, proto([3, 1])],
    [3, proto([3, 1], [4, 0])],
  );
  expect(pieces(unigram, 'abcd')).toEqual([' ab', 'cd']);
  expect(pieces(unigram, 'bcd')).toEqual([' ', 'bcd']);
  const tokenizer = tokenizerOfJson(sentencePieceTokenizer(unigram, 'x'), {});
  expect(tokenizer.encode('<s>', { special: false })).not.toContain(1);
  expect(tokenizer.encode('<0x44>', { special: false })).not.toContain(3 + 0x44);
  expect(tokenizer.encode('D', { special: false })).toContain(3 + 0x44);
});

test('a folder with a tokenizer.model alone: its tokens, those that were added, and its begin token', async () => {
  const folder = await temporaryFolder();
  await writeCheckpoint(folder);
  await fs.writeFile(join(folder, 'tokenizer.model'), BPE);
  await fs.writeFile(join(folder, 'added_tokens.json'), '{"<extra>":300,"<end>":301}');
  await fs.writeFile(
    join(folder, 'tokenizer_config.json'),
    '{"added_tokens_decoder":{"301":{"content":"<end>","special":true}},"eos_token":"<end>"}',
  );
  const tokenizer = await openTokenizer(fs, folder);
  expect(tokenizer.encode('<extra>', { special: false })).toEqual([300]);
  expect(tokenizer.encode('<end>', { special: true })).toEqual([301]);
  expect(tokenizer.encode('<end>', { special: false })).not.toContain(301);
  expect((await openTokenizer(fs, join(folder, 'tokenizer.model'))).controls).toEqual(tokenizer.controls);
  const checkpoint = await openCheckpoint(fs, folder);
  expect(await checkpoint.readJson('tokenizer.json', 2 ** 20)).toMatchObject({
    model: { type: 'BPE' },
    post_processor: { single: [{ SpecialToken: { id: '<s>' } }, {}] },
  });
  await checkpoint.close();
});

test.each<[string, Uint8Array, string]>([
  ['no pieces', new Uint8Array(0), 'CHECKPOINT_INVALID'],
  ['a text', utf8('not a model, but long enough to be read'), 'CHECKPOINT_INVALID'],
  ['a length over the end', Uint8Array.of(10, 100, 1), 'CHECKPOINT_INVALID'],
  ['an endless number', Uint8Array.of(8, ...Array(12).fill(255)), 'CHECKPOINT_INVALID'],
  ['a score that is no number', proto(piece('a', Number.NaN)), 'CHECKPOINT_INVALID'],
  ['words', proto(piece('a', 0), [2, proto([3, 3])]), 'UNSUPPORTED_MODEL'],
])('refuses %s', (_, bytes, code) => {
  expect(() => sentencePieceTokenizer(bytes, 'tokenizer.model')).toThrow(
    expect.objectContaining({ code, message: expect.stringContaining('tokenizer.model') }),
  );
});

test('damaged files are refused or read, never more', () => {
  fc.assert(
    fc.property(
      fc.nat({ max: BPE.length }),
      fc.array(fc.tuple(fc.nat({ max: BPE.length - 1 }), fc.nat({ max: 255 })), { maxLength: 5 }),
      (length, damages) => {
        const bytes = BPE.slice(0, length);
        for (const [at, byte] of damages) if (at < length) bytes[at] = byte;
        try {
          sentencePieceTokenizer(bytes, 'x');
        } catch (error) {
          expect(error).toMatchObject({
            code: expect.stringMatching(/^(?:CHECKPOINT_INVALID|UNSUPPORTED_MODEL)$/),
          });
        }
      },
    ),
    { numRuns: 300 },
  );
});
