import { expect, test } from 'vitest';
import { specialTokens } from '../../src/model/checkpoint-tokens.ts';

const none = { tokenizer: undefined, tokenizerConfig: undefined, generationConfig: undefined };
const nothing = { stopTokens: [], beginToken: null };
const known = { stopTokens: [2], beginToken: 1 };
const config = { ...known, usualTokens: nothing };
const template = {
  type: 'TemplateProcessing',
  single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A' } }],
};

test('without other files, config.json decides', () => {
  expect(specialTokens(none, config, 10)).toEqual(known);
});

test('stop tokens of all files are joined, in order, without ids outside the vocabulary', () => {
  const files = {
    tokenizer: {
      added_tokens: [
        { id: 8, content: '<|im_end|>' },
        { id: 9, content: 'other' },
      ],
    },
    tokenizerConfig: { eos_token: '<|im_end|>' },
    generationConfig: { eos_token_id: [2, 1, 77] },
  };
  expect(specialTokens(files, config, 10).stopTokens).toEqual([1, 2, 8]);
  expect(specialTokens({ ...files, generationConfig: { eos_token_id: 4 } }, config, 10).stopTokens).toEqual([
    2, 4, 8,
  ]);
});

test.each<[string, object, object | undefined, number | null]>([
  ['a post-processor that puts it there', { post_processor: template }, {}, 1],
  [
    'one inside a sequence',
    { post_processor: { type: 'Sequence', processors: [{ type: 'ByteLevel' }, template] } },
    undefined,
    1,
  ],
  ['no post-processor', { post_processor: null }, {}, null],
  [
    'a post-processor that only puts something behind',
    { post_processor: { ...template, single: [{ Sequence: {} }, { SpecialToken: { id: '</s>' } }] } },
    {},
    null,
  ],
  ['add_bos_token false over a post-processor', { post_processor: template }, { add_bos_token: false }, null],
  ['add_bos_token true', {}, { add_bos_token: true }, 1],
])('begin token with %s', (_what, tokenizer, tokenizerConfig, wanted) => {
  expect(specialTokens({ ...none, tokenizer, tokenizerConfig }, config, 10).beginToken).toBe(wanted);
});

test('files that are not what they should be change nothing', () => {
  const files = { tokenizer: 7, tokenizerConfig: [], generationConfig: { eos_token_id: 'x' } };
  expect(specialTokens(files, config, 10)).toEqual(known);
});

const added = [
  { id: 5, content: '<s>' },
  { id: 6, content: '<bos>' },
];

test.each<[string, object, object, object | undefined, number | null]>([
  ['the name in tokenizer_config.json', {}, { add_bos_token: true, bos_token: '<bos>' }, undefined, 6],
  ['its name as an object', {}, { add_bos_token: true, bos_token: { content: '<bos>' } }, undefined, 6],
  ['the post-processor', { post_processor: template }, { bos_token: '<bos>' }, undefined, 5],
  ['generation_config.json', {}, { add_bos_token: true }, { bos_token_id: 7 }, 7],
  ['the family', {}, { add_bos_token: true }, {}, 3],
  ['nothing, as it is not asked for', {}, { bos_token: '<bos>' }, { bos_token_id: 7 }, null],
])(
  'begin token that config.json leaves out, by %s',
  (_what, tokenizer, tokenizerConfig, generationConfig, wanted) => {
    const files = { tokenizer: { added_tokens: added, ...tokenizer }, tokenizerConfig, generationConfig };
    const left = { ...nothing, usualTokens: { stopTokens: [], beginToken: 3 } };
    expect(specialTokens(files, left, 10).beginToken).toBe(wanted);
  },
);

test('what the tokenizer puts before a text counts more than what config.json says', () => {
  const files = {
    ...none,
    tokenizer: { added_tokens: added },
    tokenizerConfig: { add_bos_token: true, bos_token: '<bos>' },
  };
  expect(specialTokens(files, config, 10).beginToken).toBe(6);
});

test('stop tokens of the family count where no file names one', () => {
  const left = { ...nothing, usualTokens: { stopTokens: [4], beginToken: null } };
  expect(specialTokens(none, left, 10).stopTokens).toEqual([4]);
  const generationConfig = { eos_token_id: [8] };
  expect(specialTokens({ ...none, generationConfig }, left, 10).stopTokens).toEqual([8]);
});
