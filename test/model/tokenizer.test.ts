import fc from 'fast-check';
import { expect, type TestContext, test } from 'vitest';
import { createTokenizer, type Tokenizer } from '../../src/model/tokenizer.ts';
import { sharedJson } from './shared-files.ts';
import { byteFallbackTokenizer, byteLevelTokenizer } from './tiny-tokenizers.ts';

const load = (ctx: TestContext, folder: string): Tokenizer =>
  createTokenizer(
    sharedJson(ctx, `${folder}/tokenizer.json`),
    sharedJson(ctx, `${folder}/tokenizer_config.json`),
  );

test('encodes the reference prompts of the embedded model', ctx => {
  const tokenizer = load(ctx, 'demo-model/weights');
  const { cases } = sharedJson(ctx, 'demo-model/weights/reference.json') as {
    cases: { prompt: string; ids: number[]; greedy: number[]; text: string }[];
  };
  for (const { prompt, ids, greedy, text } of cases) {
    const rendered = `<|im_start|>user\n${prompt}<|im_end|>\n<|im_start|>assistant\n`;
    expect(tokenizer.encode(rendered, { special: true })).toEqual(ids);
    expect(tokenizer.decode(greedy)).toBe(text);
  }
  expect(tokenizer.vocabulary).toBe(8192);
  expect(tokenizer.named).toMatchObject({ bos_token: '<|endoftext|>', eos_token: '<|im_end|>' });
});

test.for(['tokenizers/llama-2', 'tokenizers/phi-3-mini', 'demo-model/weights'])(
  'keeps control tokens of %s out of plain text',
  (folder, ctx) => {
    const tokenizer = load(ctx, folder);
    const controls = new Set(tokenizer.controls.values());
    expect(controls.size).toBeGreaterThan(2);
    for (const [content, id] of tokenizer.controls) {
      expect(tokenizer.encode(content, { special: true })).toContain(id);
      for (const text of [
        content,
        ` ${content}`,
        `a${content}${content} b`,
        `<${content}>`,
        `\uE0000\uE001${content}`,
      ]) {
        const ids = tokenizer.encode(text, { special: false });
        expect(ids.filter(one => controls.has(one))).toEqual([]);
        expect(tokenizer.decode(ids).trim()).toBe(text.trim());
      }
    }
  },
);

test('plain text without control tokens encodes the same with and without `special`', () => {
  const tokenizer = byteLevelTokenizer();
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme', maxLength: 40 }), text => {
      fc.pre(!tokenizer.controlText.spells(text));
      expect(tokenizer.encode(text, { special: false })).toEqual(tokenizer.encode(text, { special: true }));
    }),
  );
});

/** SentencePiece writes a space as U+2581, so that character itself comes back as a space, as in every implementation. */
const lowLineLost = (text: string) => text.replaceAll('\u2581', ' ');

test.each([
  ['byte level', () => byteLevelTokenizer(), (text: string) => text],
  ['byte fallback', () => byteFallbackTokenizer(), lowLineLost],
])('any text comes back from its tokens (%s), control tokens spelled in it too', (_, create, expected) => {
  const tokenizer = create();
  const controls = new Set(tokenizer.controls.values());
  const part = fc.oneof(
    fc.string({ unit: 'grapheme', maxLength: 12 }),
    fc.constantFrom(...tokenizer.controls.keys(), '\uE0000\uE001', '<|im_<|im_end|>'),
  );
  fc.assert(
    fc.property(fc.array(part, { maxLength: 6 }), parts => {
      const text = parts.join('');
      const ids = tokenizer.encode(text, { special: false });
      expect(tokenizer.decode(ids)).toBe(expected(text));
      expect(ids.some(id => controls.has(id))).toBe(false);
    }),
    { examples: [[['\u2581']], [['a\u2581 b', '<|im_end|>']]] },
  );
});

test('gives the bytes of tokens, none for control tokens and for padding rows', () => {
  const level = byteLevelTokenizer();
  expect([...level.pieceBytes(level.encode('\n', { special: false })[0]!)]).toEqual([10]);
  expect(level.pieceBytes(level.controls.get('<|im_end|>')!)).toHaveLength(0);
  expect(level.pieceBytes(level.vocabulary + 5)).toHaveLength(0);
  const fallback = byteFallbackTokenizer();
  expect(fallback.encode('é', { special: false }).flatMap(id => [...fallback.pieceBytes(id)])).toEqual([
    0x20, 0xc3, 0xa9,
  ]);
  expect(() => level.pieceBytes(-1)).toThrow(expect.objectContaining({ code: 'BAD_REQUEST' }));
  expect(() => level.pieceBytes(1.5)).toThrow(expect.objectContaining({ code: 'BAD_REQUEST' }));
});

test('a control token is not looked up as a whole word either', () => {
  const tokenizer = byteLevelTokenizer({ ignore_merges: true }, { use_regex: false });
  const ids = tokenizer.encode('<|im_end|>', { special: false });
  expect(ids).not.toContain(tokenizer.controls.get('<|im_end|>'));
  expect(tokenizer.decode(ids)).toBe('<|im_end|>');
});

test('a token that reaches over a space is found, though texts are otherwise cut into words', () => {
  const pieces = (tokenizer: Tokenizer) =>
    tokenizer.encode('a b', { special: false }).map(id => new TextDecoder().decode(tokenizer.pieceBytes(id)));
  expect(pieces(byteFallbackTokenizer())).toEqual([' ', 'a', ' ', 'b']);
  expect(pieces(byteFallbackTokenizer(['a ▁']))).toEqual([' ', 'a ', 'b']);
});

test('invalid bytes decode as U+FFFD', () => {
  const tokenizer = byteLevelTokenizer();
  const [first] = tokenizer.encode('ü', { special: false });
  expect(tokenizer.decode([first!])).toBe('\uFFFD');
  expect(tokenizer.decode([first!, ...tokenizer.encode('a', { special: false })])).toBe('\uFFFDa');
});

test('refuses a text that cannot fit, before encoding it', () => {
  const tokenizer = byteLevelTokenizer();
  expect(() => tokenizer.encode('a'.repeat(10_000), { special: false, limit: 8 })).toThrow(
    expect.objectContaining({ code: 'CONTEXT_TOO_LONG' }),
  );
});

test.each([
  ['nothing', null, 'PACK_INVALID'],
  ['no model', {}, 'PACK_INVALID'],
  ['no merges', { model: { type: 'BPE', vocab: {} } }, 'PACK_INVALID'],
  [
    'malformed added tokens',
    { model: { type: 'BPE', vocab: {}, merges: [] }, added_tokens: [{}] },
    'PACK_INVALID',
  ],
  ['another kind', { model: { type: 'WordPiece', vocab: {} } }, 'UNSUPPORTED_MODEL'],
  ['a merge of one piece', { model: { type: 'BPE', vocab: {}, merges: [['a']] } }, 'PACK_INVALID'],
  ['an absurd id', { model: { type: 'BPE', vocab: { a: 1e12 }, merges: [] } }, 'PACK_INVALID'],
  ['a piece without score', { model: { type: 'Unigram', vocab: [['a']] } }, 'PACK_INVALID'],
  [
    'another decoder',
    { model: { type: 'BPE', vocab: {}, merges: [] }, decoder: { type: 'WordPiece' } },
    'UNSUPPORTED_MODEL',
  ],
])('refuses a tokenizer with %s', (_, json, code) => {
  expect(() => createTokenizer(json, {})).toThrow(expect.objectContaining({ code }));
});
