import * as fileSystem from 'node:fs/promises';
import { PotluckError } from '../../errors/errors.ts';
import { openTokenizer } from '../../model/open-tokenizer.ts';
import { type DifferentCase, differentCases, readVocabularyCases } from '../../model/vocabulary-cases.ts';
import { readWholeFile } from '../../pack/file-system.ts';

const VECTOR_BYTES = 2 ** 26;

export interface TokenizerReport {
  readonly cases: number;
  readonly equal: number;
  readonly different: readonly DifferentCase[];
}

/** Encodes the texts of `base`.inp by the tokenizer at `path` and compares with the ids of `base`.out. */
export async function evalTokenizer(path: string, base: string): Promise<TokenizerReport> {
  const tokenizer = await openTokenizer(fileSystem, path);
  const cases = readVocabularyCases(await readText(`${base}.inp`), await readText(`${base}.out`), base);
  const different = differentCases(tokenizer, cases);
  return { cases: cases.length, equal: cases.length - different.length, different };
}

async function readText(path: string): Promise<string> {
  const bytes = await readWholeFile(fileSystem, path, VECTOR_BYTES);
  if (bytes === undefined)
    throw new PotluckError(
      'BAD_OPTION',
      `${path} does not exist: give the path of the vectors without .inp and .out`,
    );
  return new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes);
}
