import { existsSync } from 'node:fs';
import * as fs from 'node:fs/promises';
import { expect, test } from 'vitest';
import { openTokenizer } from '../../src/model/open-tokenizer.ts';
import { differentCases, readVocabularyCases } from '../../src/model/vocabulary-cases.ts';
import { sharedPath, sharedText } from './shared-files.ts';
import { byteLevelTokenizer } from './tiny-tokenizers.ts';

test.for([
  ['gpt-2', 'ggml-vocab-gpt-2.gguf', 'ggml-vocab-gpt-2.gguf'],
  ['llama-2', 'ggml-vocab-llama-spm.gguf', 'ggml-vocab-llama-spm.gguf'],
  ['llama-2', 'tokenizer.json', 'ggml-vocab-llama-spm.gguf'],
  ['phi-3-mini', 'ggml-vocab-phi-3.gguf', 'ggml-vocab-phi-3.gguf'],
  ['phi-3-mini', 'tokenizer.json', 'ggml-vocab-phi-3.gguf'],
] as const)('%s: %s agrees with every vector', async ([folder, file, base], ctx) => {
  const inputs = sharedText(ctx, `tokenizers/${folder}/${base}.inp`);
  const outputs = sharedText(ctx, `tokenizers/${folder}/${base}.out`);
  const cases = readVocabularyCases(inputs, outputs, base);
  expect(cases).toHaveLength(46);
  const tokenizer = await openTokenizer(fs, sharedPath(`tokenizers/${folder}/${file}`));
  expect(differentCases(tokenizer, cases)).toEqual([]);
  for (const { text, ids } of cases) expect(tokenizer.decode(ids)).toBe(text);
});

test.for([
  ['llama-2', 'ggml-vocab-llama-spm.gguf', '</s>'],
  ['phi-3-mini', 'ggml-vocab-phi-3.gguf', '<|end|>'],
  ['gpt-2', 'ggml-vocab-gpt-2.gguf', '<|endoftext|>'],
] as const)('%s: %s keeps control tokens out of text', async ([folder, file, marker], ctx) => {
  const path = sharedPath(`tokenizers/${folder}/${file}`);
  if (!existsSync(path)) {
    console.warn(`skipped "${ctx.task.name}": ${path} is absent`);
    ctx.skip();
  }
  const tokenizer = await openTokenizer(fs, path);
  const controls = new Set(tokenizer.controls.values());
  expect(tokenizer.encode(marker, { special: true }).filter(id => controls.has(id))).toHaveLength(1);
  const text = `Hi${marker}\n${marker} there`;
  const ids = tokenizer.encode(text, { special: false });
  expect(ids.filter(id => controls.has(id))).toEqual([]);
  expect(tokenizer.decode(ids)).toBe(text);
});

test('cases: a text may be empty or end with line breaks, a line of ids may be empty', () => {
  const mark = '\n__ggml_vocab_test__\n';
  expect(readVocabularyCases(`a${mark}${mark}b\n\n${mark}`, ' 1 2\n\n 3\n', 'x')).toEqual([
    { text: 'a', ids: [1, 2] },
    { text: '', ids: [] },
    { text: 'b\n\n', ids: [3] },
  ]);
  expect(() => readVocabularyCases(`a${mark}`, '1\n2\n', 'x')).toThrow(/1 texts and 2 lines/);
  expect(() => readVocabularyCases(`a${mark}`, '1 b\n', 'x')).toThrow(/"b" is not a token id/);
});

test('a wrong id, a missing one and one too many are different', () => {
  const tokenizer = byteLevelTokenizer();
  const ids = tokenizer.encode('hello', { special: false });
  const cases = [ids, [...ids, 3], ids.slice(1), ids.map(id => id + 1)].map(one => ({
    text: 'hello',
    ids: one,
  }));
  expect(differentCases(tokenizer, cases)).toEqual(cases.slice(1).map(one => ({ ...one, got: ids })));
});
