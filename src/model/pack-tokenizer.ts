import { invalidPack, PACK_FILE_BYTES } from '../pack/read-manifest.ts';
import type { Checkpoint } from './checkpoint.ts';
import { splitTokenizer } from './model-vocabulary.ts';
import { createTokenizer, type Tokenizer } from './tokenizer.ts';
import { readVocabulary, VOCABULARY_FILE, vocabularyMemory } from './vocabulary-file.ts';

/** The tokenizer of a pack: its files, and what they are made of. */

export interface PackFile {
  readonly name: string;
  readonly bytes: Uint8Array;
}

/**
 * Files of the tokenizer that a pack of `checkpoint` has: tokenizer.json without its vocabulary, vocabulary.bin, and further files as
 * they are. Rejects with PACK_INVALID, UNSUPPORTED_MODEL or DISK_READ.
 */
export async function tokenizerPackFiles(checkpoint: Checkpoint): Promise<PackFile[]> {
  const files: PackFile[] = [];
  const json = await checkpoint.readJson('tokenizer.json', PACK_FILE_BYTES);
  if (json !== undefined) files.push(...splitFiles(json));
  for (const name of ['tokenizer_config.json', 'chat_template.jinja']) {
    const bytes = await checkpoint.readFile(name, PACK_FILE_BYTES);
    if (bytes) files.push({ name, bytes });
  }
  return files;
}

/** A tokenizer.json as the two files that a pack has of it. Throws as splitTokenizer. */
export function splitFiles(tokenizerJson: unknown): PackFile[] {
  const { json, vocabulary } = splitTokenizer(tokenizerJson);
  return [
    { name: 'tokenizer.json', bytes: new TextEncoder().encode(JSON.stringify(json)) },
    { name: VOCABULARY_FILE, bytes: vocabulary },
  ];
}

/** Of tokenizer.json, which has settings and added tokens: what it takes once it is open, for each byte. */
const MEMORY_A_JSON_BYTE = 10;

/** About the bytes of memory that the tokenizer of a pack with these files takes. `tokens`: of its vocabulary. */
export function tokenizerMemory(
  files: readonly { readonly name: string; readonly bytes: number }[],
  tokens: number,
): number {
  const bytesOf = (name: string) => files.find(file => file.name === name)?.bytes ?? 0;
  return bytesOf('tokenizer.json') * MEMORY_A_JSON_BYTE + vocabularyMemory(bytesOf(VOCABULARY_FILE), tokens);
}

/** The tokenizer of the parsed files that a checkpoint has. Throws as splitTokenizer and createTokenizer. */
export function tokenizerOfJson(tokenizerJson: unknown, tokenizerConfig: unknown): Tokenizer {
  const { json, vocabulary } = splitTokenizer(tokenizerJson);
  return createTokenizer(json, tokenizerConfig, readVocabulary(vocabulary, 'tokenizer.json'));
}

/**
 * The tokenizer of a pack, whose files `readFile` gives; undefined where it has none. `place` names the pack. Rejects with
 * PACK_INVALID, UNSUPPORTED_MODEL, or as `readFile` does.
 */
export async function packTokenizer(
  readFile: (name: string) => Promise<Uint8Array | undefined>,
  place: string,
): Promise<Tokenizer | undefined> {
  const json = await readFile('tokenizer.json');
  if (json === undefined) return undefined;
  const vocabulary = await readFile(VOCABULARY_FILE);
  if (vocabulary === undefined) throw invalidPack(place, `has a tokenizer.json and no ${VOCABULARY_FILE}`);
  const config = await readFile('tokenizer_config.json');
  return createTokenizer(
    parsed(json, `${place}: tokenizer.json`),
    config === undefined ? {} : parsed(config, `${place}: tokenizer_config.json`),
    readVocabulary(vocabulary, `${place}: ${VOCABULARY_FILE}`),
  );
}

function parsed(bytes: Uint8Array, file: string): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (error) {
    throw invalidPack(file, 'is not JSON', error);
  }
}
