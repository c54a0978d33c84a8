import { PotluckError } from '../errors/errors.ts';
import type { Tokenizer } from './tokenizer.ts';

/** A text and the ids that it should become. */
export interface VocabularyCase {
  readonly text: string;
  readonly ids: readonly number[];
}

const SEPARATOR = '\n__ggml_vocab_test__\n';

/**
 * Cases of llama.cpp's vocabulary tests. `inputs`: texts, each followed by a line `__ggml_vocab_test__`. `outputs`: a line of
 * ids for each. `name` names them. Throws BAD_OPTION where they do not belong together.
 */
export function readVocabularyCases(inputs: string, outputs: string, name: string): VocabularyCase[] {
  const texts = inputs.split(SEPARATOR);
  if (texts.at(-1) === '') texts.pop();
  const lines = outputs.split('\n');
  if (lines.at(-1) === '') lines.pop();
  if (texts.length === 0 || texts.length !== lines.length)
    throw new PotluckError('BAD_OPTION', `${name}: ${texts.length} texts and ${lines.length} lines of ids`);
  return texts.map((text, i) => ({ text, ids: idsOf(lines[i]!, name) }));
}

function idsOf(line: string, name: string): number[] {
  const words = line.split(/\s+/).filter(word => word !== '');
  const ids = words.map(Number);
  const wrong = words.find((_, i) => !Number.isSafeInteger(ids[i]));
  if (wrong !== undefined)
    throw new PotluckError('BAD_OPTION', `${name}: ${JSON.stringify(wrong.slice(0, 50))} is not a token id`);
  return ids;
}

export interface DifferentCase extends VocabularyCase {
  readonly got: readonly number[];
}

/** Those cases that a tokenizer encodes otherwise. Texts are encoded without begin token and without control tokens. */
export function differentCases(tokenizer: Tokenizer, cases: readonly VocabularyCase[]): DifferentCase[] {
  return cases.flatMap(({ text, ids }) => {
    const got = tokenizer.encode(text, { special: false });
    return got.length === ids.length && got.every((id, i) => id === ids[i]) ? [] : [{ text, ids, got }];
  });
}
