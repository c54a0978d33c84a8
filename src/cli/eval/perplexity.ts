import { PotluckError } from '../../errors/errors.ts';
import type { Tokenizer } from '../../model/tokenizer.ts';
import { evaluateLoss } from '../api-client.ts';

/** How the reference perplexities were taken. */
export const CHARACTERS = 300_000;

/**
 * Perplexity of a text: its first characters are encoded whole and cut into windows of `window + 1` ids, one after
 * another; each window is computed alone, from position 0, and gives `window` predictions. exp of their mean loss.
 */
export async function perplexity(
  url: string,
  tokenizer: Tokenizer,
  text: string,
  shape: { readonly windows: number; readonly window: number },
  onWindow: (done: number) => void,
): Promise<number> {
  const cuts = windowsOf(tokenizer.encode(firstCharacters(text, CHARACTERS), { special: false }), shape);
  const at = Array.from({ length: shape.window }, (_, i) => i);
  let sum = 0;
  for (const [i, cut] of cuts.entries()) {
    const { loss, count } = await evaluateLoss(url, cut, at);
    if (count !== shape.window)
      throw new PotluckError('PROTOCOL', `${count} losses came for ${shape.window} tokens`);
    sum += loss;
    onWindow(i + 1);
  }
  return Math.exp(sum / (cuts.length * shape.window));
}

/** The first `count` characters (code points) of a text. */
export function firstCharacters(text: string, count: number): string {
  let end = 0;
  for (let i = 0; i < count && end < text.length; i++) end += text.codePointAt(end)! > 0xffff ? 2 : 1;
  return text.slice(0, end);
}

/** Throws BAD_REQUEST where the text has too few tokens. */
export function windowsOf(
  ids: readonly number[],
  { windows, window }: { readonly windows: number; readonly window: number },
): number[][] {
  const size = window + 1;
  if (ids.length < windows * size) {
    throw new PotluckError('BAD_REQUEST', `The text has ${ids.length} tokens; ${windows * size} are needed`);
  }
  return Array.from({ length: windows }, (_, i) => ids.slice(i * size, (i + 1) * size));
}
