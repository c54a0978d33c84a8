import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import {
  type PackFile,
  packTokenizer,
  splitFiles,
  tokenizerMemory,
  tokenizerOfJson,
} from '../../src/model/pack-tokenizer.ts';
import { syntheticTokenizer } from '../../src/model/synthetic-tokenizer.ts';
import { vocabularyMemory } from '../../src/model/vocabulary-file.ts';
import { temporaryFolder } from '../pack/temporary-folder.ts';
import { sharedJson, sharedText } from './shared-files.ts';
import { byteLevelJson } from './tiny-tokenizers.ts';

const reader = (files: readonly PackFile[]) => (name: string) =>
  Promise.resolve(files.find(file => file.name === name)?.bytes);

test.for(['tokenizers/llama-2', 'tokenizers/phi-3-mini', 'demo-model/weights'])(
  'a pack of %s has the tokens of its tokenizer.json',
  async (folder, ctx) => {
    const json = sharedJson(ctx, `${folder}/tokenizer.json`) as { model: Record<string, unknown> };
    const config = sharedJson(ctx, `${folder}/tokenizer_config.json`);
    const files = splitFiles(json);
    expect(files.map(({ name }) => name)).toEqual(['tokenizer.json', 'vocabulary.bin']);
    const { vocab: _, merges: __, ...settings } = json.model;
    expect(JSON.parse(Buffer.from(files[0]!.bytes).toString())).toEqual({ ...json, model: settings });
    const configBytes = new TextEncoder().encode(JSON.stringify(config));
    const packed = (await packTokenizer(
      reader([...files, { name: 'tokenizer_config.json', bytes: configBytes }]),
      'x',
    ))!;
    const before = tokenizerOfJson(json, config);
    const text = sharedText(ctx, 'text/book-heldout.txt').slice(0, 100_000);
    expect(packed.encode(text, { special: false })).toEqual(before.encode(text, { special: false }));
    expect(packed.vocabulary).toBe(before.vocabulary);
    expect(packed.controls).toEqual(before.controls);
    for (let id = 0; id < packed.vocabulary; id += 13)
      expect(packed.pieceBytes(id)).toEqual(before.pieceBytes(id));
  },
);

test('a Unigram pack is known by its scores where the type is left out', async () => {
  const model = {
    unk_id: 0,
    vocab: [
      ['?', -9],
      ['a', -1],
      ['b', -2],
      ['ab', -4],
    ],
  };
  const tokenizer = (await packTokenizer(reader(splitFiles({ model })), 'x'))!;
  expect(tokenizer.encode('abx', { special: false })).toEqual([1, 2, 0]);
});

test('refuses a pack without vocabulary, with one of another kind, and JSON that is none', async () => {
  const [json, vocabulary] = splitFiles(byteLevelJson()) as [PackFile, PackFile];
  const [unigram] = splitFiles({ model: { type: 'Unigram', vocab: [['a', -1]] } }) as [PackFile];
  const broken = { name: 'tokenizer.json', bytes: Uint8Array.of(123) };
  for (const files of [[json], [unigram, vocabulary], [broken, vocabulary]])
    await expect(packTokenizer(reader(files), 'x')).rejects.toMatchObject({ code: 'PACK_INVALID' });
  expect(await packTokenizer(reader([vocabulary]), 'x')).toBeUndefined();
});

test.each([
  ['twice the same id', { vocab: { a: 1, b: 1 }, merges: [] }],
  ['half a character', { vocab: { '\ud800': 1 }, merges: [] }],
  ['half a character in a list', { type: 'Unigram', vocab: [['\udfff', 0]] }],
  ['an endless score', { type: 'Unigram', vocab: [['a', Number.NEGATIVE_INFINITY]] }],
])('refuses a tokenizer.json with %s', (_, model) => {
  expect(() => splitFiles({ model })).toThrow(expect.objectContaining({ code: 'PACK_INVALID' }));
});

test('128,256 tokens take a few megabytes of a process, and no more than was reckoned', async () => {
  const folder = await temporaryFolder();
  const { files } = syntheticTokenizer(128_256, 1);
  for (const { name, bytes } of files) await writeFile(join(folder, name), bytes);
  const program = fileURLToPath(new URL('./tokenizer-memory-child.mjs', import.meta.url));
  const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', program, folder]);
  const seen = JSON.parse(stdout) as { atOnce: number; taken: number; tokens: number[] };
  expect(seen.tokens).toEqual([128_256, 128_256]);
  const bytes = files.find(({ name }) => name === 'vocabulary.bin')!.bytes.length;
  expect(bytes).toBeGreaterThan(4e6);
  expect(seen.taken).toBeGreaterThan(bytes); // it is all there
  expect(seen.taken).toBeLessThan(vocabularyMemory(bytes, 128_256) + 2 ** 20);
  expect(seen.atOnce).toBeLessThan(16 * 2 ** 20);
  expect(vocabularyMemory(bytes, 128_256)).toBeLessThan(9 * 2 ** 20);
});

test('a drawn tokenizer is like real ones in size and merges', () => {
  const { files, end } = syntheticTokenizer(128_256, 1);
  expect(end).toBe(128_255);
  const [, tokens, textBytes, merges] = new Uint32Array(files[1]!.bytes.buffer, 0, 4) as unknown as number[];
  expect(tokens).toBe(128_256);
  expect(merges! / tokens!).toBeGreaterThan(1.9);
  expect(textBytes! / tokens!).toBeGreaterThan(5);
  const again = (seed: number) => Buffer.from(syntheticTokenizer(128_256, seed).files[1]!.bytes);
  expect(again(1).equals(files[1]!.bytes)).toBe(true);
  expect(again(2).equals(files[1]!.bytes)).toBe(false);
});

test.each([2, 100, 257, 258, 1000])('a drawn tokenizer may have %d tokens', async tokens => {
  const { files, end } = syntheticTokenizer(tokens, 3);
  const tokenizer = (await packTokenizer(reader(files), 'x'))!;
  expect(tokenizer.vocabulary).toBe(tokens);
  expect(tokenizer.controls.get('<|end|>')).toBe(end);
  if (tokens > 256) expect(tokenizer.decode(tokenizer.encode('Grüße', { special: false }))).toBe('Grüße');
});

test('the memory of a tokenizer is reckoned by its files', () => {
  const vocabulary = { name: 'vocabulary.bin', bytes: 4_276_028 };
  expect(tokenizerMemory([], 128_256)).toBe(0);
  expect(tokenizerMemory([vocabulary], 128_256)).toBe(vocabularyMemory(vocabulary.bytes, 128_256));
  const json = { name: 'tokenizer.json', bytes: 1000 };
  expect(tokenizerMemory([vocabulary, json], 128_256)).toBeGreaterThan(
    tokenizerMemory([vocabulary], 128_256),
  );
});
