import { dirname, join } from 'node:path';
import { PotluckError } from '../errors/errors.ts';
import { type FileSystem, openToRead, readWholeFile } from '../pack/file-system.ts';
import { invalidCheckpoint } from './checkpoint-error.ts';
import { tokenizerJsonOfModel } from './folder-tokenizer.ts';
import { readGgufHeader } from './gguf/header.ts';
import { MetadataFields } from './gguf/metadata-fields.ts';
import { tokenizerFiles } from './gguf/tokenizer-files.ts';
import { parseJsonFile } from './json-file.ts';
import { packTokenizer, tokenizerOfJson } from './pack-tokenizer.ts';
import type { Tokenizer } from './tokenizer.ts';
import { VOCABULARY_FILE } from './vocabulary-file.ts';

const TOKENIZER_BYTES = 2 ** 28;

/**
 * The tokenizer of a tokenizer.json, a tokenizer.model, a GGUF file (of a vocabulary alone, too), a folder with one of the
 * first two, or a pack. Rejects with PACK_NOT_FOUND, CHECKPOINT_INVALID, PACK_INVALID, UNSUPPORTED_MODEL or DISK_READ.
 */
export async function openTokenizer(fileSystem: FileSystem, path: string): Promise<Tokenizer> {
  if (/\.gguf$/i.test(path)) return openGguf(fileSystem, path);
  const isJson = /\.json$/i.test(path);
  const isModel = /\.model$/i.test(path);
  const folder = isJson || isModel ? dirname(path) : path;
  const ofPack = isModel ? undefined : await openPack(fileSystem, folder);
  if (ofPack !== undefined) return ofPack;
  const json = isModel
    ? undefined
    : await readJson(fileSystem, isJson ? path : join(folder, 'tokenizer.json'));
  // A tokenizer.model by another name is still read as one.
  const readFile = (name: string, limit: number) =>
    readWholeFile(fileSystem, isModel && name === 'tokenizer.model' ? path : join(folder, name), limit);
  const found = json ?? (isJson ? undefined : await tokenizerJsonOfModel(readFile, folder));
  const config = await readJson(fileSystem, join(folder, 'tokenizer_config.json'));
  if (found !== undefined) return tokenizerOfJson(found, config ?? {});
  throw new PotluckError(
    'PACK_NOT_FOUND',
    `${path}: there is no tokenizer here. Give a tokenizer.json, a tokenizer.model, a GGUF file, or a folder that has one.`,
  );
}

async function openGguf(fileSystem: FileSystem, path: string): Promise<Tokenizer> {
  const file = await openToRead(fileSystem, path);
  try {
    const { metadata } = await readGgufHeader(file, path);
    const files = tokenizerFiles(new MetadataFields(metadata, path));
    if (files === null) throw invalidCheckpoint(path, 'has no vocabulary');
    return tokenizerOfJson(files.tokenizerJson, files.tokenizerConfig);
  } finally {
    await file.close();
  }
}

/** Undefined unless the vocabulary is a file of its own, as in packs: tokenizer.json has none then. */
async function openPack(fileSystem: FileSystem, folder: string): Promise<Tokenizer | undefined> {
  const readFile = (name: string) => readWholeFile(fileSystem, join(folder, name), TOKENIZER_BYTES);
  const vocabulary = await readFile(VOCABULARY_FILE);
  if (vocabulary === undefined) return undefined;
  return packTokenizer(async name => (name === VOCABULARY_FILE ? vocabulary : readFile(name)), folder);
}

async function readJson(fileSystem: FileSystem, path: string): Promise<unknown> {
  const bytes = await readWholeFile(fileSystem, path, TOKENIZER_BYTES);
  return bytes && parseJsonFile(bytes, path);
}
