import fc from 'fast-check';
import { expect, type TestContext, test } from 'vitest';
import { tokenizerOfJson } from '../../src/model/pack-tokenizer.ts';
import type { Tokenizer } from '../../src/model/tokenizer.ts';
import { sharedJson } from './shared-files.ts';
import { byteFallbackTokenizer, byteLevelJson, byteLevelTokenizer } from './tiny-tokenizers.ts';

const load = (ctx: TestContext, folder: string): Tokenizer =>
  tokenizerOfJson(
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

test('refuses a text of far more tokens than the limit, and takes one of few more', () => {
  const tokenizer = byteLevelTokenizer();
  const text = 'hello '.repeat(20_000);
  const ids = tokenizer.encode(text, { special: false });
  expect(tokenizer.encode(text, { special: false, limit: Math.ceil(ids.length / 2) })).toEqual(ids);
  for (const limit of [Math.floor(ids.length / 2) - 1024, 1000, 1, 0])
    expect(() => tokenizer.encode(text, { special: false, limit })).toThrow(
      expect.objectContaining({ code: 'CONTEXT_TOO_LONG' }),
    );
});

test('gives a long text up soon after the limit', () => {
  const words: string[] = [];
  const tokenizer = byteLevelTokenizer();
  const text = Array.from({ length: 100_000 }, (_, i) => `w${'abcdefghij'[i % 10]}`).join(' ');
  const original = TextEncoder.prototype.encode;
  // Each word is turned into bytes when it is cut off.
  TextEncoder.prototype.encode = function (word = '') {
    words.push(word);
    return original.call(this, word);
  };
  try {
    expect(() => tokenizer.encode(text, { special: false, limit: 15_000 })).toThrow(
      expect.objectContaining({ code: 'CONTEXT_TOO_LONG' }),
    );
  } finally {
    TextEncoder.prototype.encode = original;
  }
  expect(words.length).toBeGreaterThan(9_000);
  expect(words.length).toBeLessThan(40_000);
});

test('a long text that is cut has the tokens of the whole', () => {
  const tokenizer = byteLevelTokenizer();
  const line = "The tree's he lled hello 12 times,\n\n  and é\u0301 x\t y.   ";
  const once = tokenizer.encode(line, { special: false });
  const many = tokenizer.encode(line.repeat(3000), { special: false });
  // Each repetition begins after white space, so it has tokens of its own.
  expect(many.length).toBeGreaterThan(2900 * once.length);
  expect(tokenizer.decode(many)).toBe(line.repeat(3000));
  const whole = byteLevelTokenizer(
    {},
    {
      type: 'Sequence',
      pretokenizers: [
        { type: 'ByteLevel', use_regex: true, add_prefix_space: false },
        { type: 'Split', pattern: { Regex: '\\u0120(?=zzz)' }, behavior: 'Isolated' },
      ],
    },
  );
  expect(whole.encode(line.repeat(3000), { special: false })).toEqual(many);
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
  expect(() => tokenizerOfJson(json, {})).toThrow(expect.objectContaining({ code }));
});

test.each([false, true])('words end at the white space of Unicode (a space before texts: %s)', before => {
  const json = byteLevelJson({}, { add_prefix_space: before }) as {
    model: { vocab: Record<string, number>; merges: string[] };
  };
  const { vocab, merges } = json.model;
  // A space with the first byte of U+FEFF, and with that of U+0085.
  for (const merge of ['Ġ ï', 'Ġ Â']) {
    vocab[merge.replace(' ', '')] = Object.keys(vocab).length;
    merges.push(merge);
  }
  const tokenizer = tokenizerOfJson(json, {});
  const pieces = (text: string) =>
    tokenizer
      .encode(text, { special: false })
      .map(id => Buffer.from(tokenizer.pieceBytes(id)).toString('latin1'));
  expect(pieces(' \ufeffx')).toEqual([' \xef', '\xbb', '\xbf', 'x']);
  expect(pieces('  \x85x')).toEqual([' ', ' ', '\xc2', '\x85', 'x']);
});

test('an added token of SentencePiece has spaces, as its pieces do; one of bytes is as it is', () => {
  const added = { id: 1000, content: '▁▁', special: false, normalized: false };
  const fallback = byteFallbackTokenizer([], [added]);
  const text = 'a▁▁';
  expect(fallback.encode(text, { special: false })).toContain(1000);
  expect(fallback.decode(fallback.encode(text, { special: false }))).toBe('a  ');
  const level = byteLevelJson() as { added_tokens: object[] };
  level.added_tokens.push(added);
  const tokenizer = tokenizerOfJson(level, {});
  expect(tokenizer.decode(tokenizer.encode(text, { special: false }))).toBe(text);
});
