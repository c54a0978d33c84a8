import { expect, test } from 'vitest';
import { specialTokens } from '../../src/model/checkpoint-tokens.ts';

const none = { tokenizer: undefined, tokenizerConfig: undefined, generationConfig: undefined };
const config = { stopTokens: [2], beginToken: 1 };
const template = {
  type: 'TemplateProcessing',
  single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A' } }],
};

test('without other files, config.json decides', () => {
  expect(specialTokens(none, config, 10)).toEqual(config);
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
    { post_processor: { ...template, single: [{ Sequence: {} }, { SpecialToken: {} }] } },
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
  expect(specialTokens(files, config, 10)).toEqual(config);
});
