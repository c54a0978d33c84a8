import { PotluckError } from '../errors/errors.ts';
import { type ControlText, chooseBreaker, createControlText } from './control-text.ts';
import { createTokenModel } from './token-model.ts';
import { loadLibrary } from './tokenizer-library.ts';
import { createPieceDecoder } from './tokenizer-pieces.ts';
import type { Vocabulary } from './vocabulary.ts';
import { MOST_TOKENS } from './vocabulary-file.ts';

export interface EncodeOptions {
  /** False: text that spells a control token stays text. True: it becomes that token (for rendered templates). */
  readonly special: boolean;
  /** With `special`: the breaker already in the text, see src/model/control-text.ts. */
  readonly breaker?: string;
  /** Most tokens that make sense: a text that has far more is given up on the way. What has few more is still encoded. */
  readonly limit?: number;
}

export interface Tokenizer {
  /** Token ids of `text`; no begin or end token is added. Throws CONTEXT_TOO_LONG, see EncodeOptions.limit. */
  encode(text: string, options: EncodeOptions): number[];
  /** Text of ids; control tokens give none, bytes that are not UTF-8 give U+FFFD. Throws BAD_REQUEST for an unknown id. */
  decode(ids: readonly number[]): string;
  /** Bytes of one token, empty for a control token; concatenated they are the UTF-8 text. Throws BAD_REQUEST. */
  pieceBytes(id: number): Uint8Array;
  /** One more than the greatest id. */
  readonly vocabulary: number;
  /** Ids of the control tokens by their string. */
  readonly controls: ReadonlyMap<string, number>;
  readonly controlText: ControlText;
  /** Strings that templates ask for: bos_token, eos_token, pad_token, unk_token, where the tokenizer names them. */
  readonly named: Readonly<Record<string, string>>;
  /** The chat template that tokenizer_config.json brings, or null. */
  readonly chatTemplate: string | null;
  /** Its template for chats with tools, where that is another one. */
  readonly toolTemplate: string | null;
  /** True where whole texts lose one space at their beginning. */
  readonly stripsLeadingSpace: boolean;
}

interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special?: boolean;
}

interface TokenizerJson {
  readonly model: unknown;
  readonly added_tokens: readonly AddedToken[];
  readonly [key: string]: unknown;
}

const NAMED = ['bos_token', 'eos_token', 'pad_token', 'unk_token'];

/**
 * `tokenizerJson` and `tokenizerConfig` are the parsed files of those names, `vocabulary` stands for vocab and merges of the first.
 * Throws PACK_INVALID where a part is missing, UNSUPPORTED_MODEL for a tokenizer that is neither BPE nor Unigram.
 */
export function createTokenizer(
  tokenizerJson: unknown,
  tokenizerConfig: unknown,
  vocabulary: Vocabulary,
): Tokenizer {
  const json = checked(tokenizerJson);
  const config = typeof tokenizerConfig === 'object' && tokenizerConfig !== null ? tokenizerConfig : {};
  const decoder = createPieceDecoder(json.decoder);
  const named = namedTokens(config as Record<string, unknown>);
  const controls = controlTokens(json.added_tokens, Object.values(named));
  const controlIds = new Set(controls.values());
  const encodeWord = createTokenModel(json.model, vocabulary, controlIds);
  const library = loadLibrary(json, vocabulary);
  const added = new Map(json.added_tokens.map(token => [token.id, token.content]));
  const controlText = createControlText([...controls.keys()]);
  const longestPiece = [...added.values()].reduce(
    (most, content) => Math.max(most, content.length),
    Math.max(1, vocabulary.longest),
  );
  const encodeBroken = (text: string, breaker: string, limit: number): number[] => {
    const ids: number[] = [];
    const most = 2 * limit + SLACK;
    const encodeSection = (section: string): void => {
      const whole = breaker === '' ? section : section.replaceAll(breaker, '');
      for (const words of library.words(whole))
        for (const word of words) {
          // A token stands for as many characters as the longest piece at most.
          if (word.length > (most - ids.length) * longestPiece) throw tooLong(text, limit);
          encodeWord(word, ids);
        }
    };
    if (text !== '') library.sections(text, encodeSection, id => ids.push(id));
    return ids;
  };
  const pieceBytes = (id: number): Uint8Array => {
    if (controlIds.has(id)) return new Uint8Array(0);
    const content = added.get(id);
    if (content !== undefined) return decoder.addedBytes(content);
    const piece = vocabulary.piece(id);
    if (piece !== undefined) return decoder.bytes(piece);
    // Rows of the logits beyond the tokenizer's vocabulary are padding: they have no text.
    if (Number.isSafeInteger(id) && id >= 0) return new Uint8Array(0);
    throw new PotluckError('BAD_REQUEST', `${id} is not a token id. Ids are whole numbers from 0.`);
  };

  return {
    encode(text, { special, breaker, limit = Number.POSITIVE_INFINITY }) {
      // A normalizer may shrink a text (NFC: up to four times), so the bound on the text as it came is that much wider.
      if (text.length > limit * longestPiece * 4) throw tooLong(text, limit);
      if (special) return encodeBroken(text, breaker ?? '', limit);
      if (!controlText.spells(text)) return encodeBroken(text, '', limit);
      const own = chooseBreaker([text]);
      return encodeBroken(controlText.break(text, own), own, limit);
    },
    decode(ids) {
      const text = new TextDecoder('utf-8', { ignoreBOM: true }).decode(concatenate(ids.map(pieceBytes)));
      return decoder.stripsLeadingSpace && text.startsWith(' ') ? text.slice(1) : text;
    },
    pieceBytes,
    vocabulary: json.added_tokens.reduce((most, { id }) => Math.max(most, id + 1), vocabulary.tokens),
    controls,
    controlText,
    named,
    chatTemplate: templateOf(config as Record<string, unknown>, 'default'),
    toolTemplate: templateOf(config as Record<string, unknown>, 'tool_use'),
    stripsLeadingSpace: decoder.stripsLeadingSpace,
  };
}

function checked(value: unknown): TokenizerJson {
  const json = value as Partial<TokenizerJson> | null;
  const added = (typeof json === 'object' && json !== null ? json.added_tokens : undefined) ?? [];
  const wellFormed = (token: AddedToken) =>
    Number.isSafeInteger(token?.id) &&
    token.id >= 0 &&
    token.id < MOST_TOKENS &&
    typeof token.content === 'string';
  if (!Array.isArray(added) || added.length > MOST_ADDED || !added.every(wellFormed)) {
    throw new PotluckError(
      'PACK_INVALID',
      'added_tokens of tokenizer.json is malformed. Write the pack again.',
    );
  }
  return { model: null, ...json, added_tokens: added };
}

/** Most tokens that are looked for in texts as they are. */
const MOST_ADDED = 2 ** 16;

function namedTokens(config: Record<string, unknown>): Record<string, string> {
  const named: Record<string, string> = {};
  for (const name of NAMED) {
    const value = config[name];
    const content =
      typeof value === 'object' && value !== null ? (value as { content?: unknown }).content : value;
    if (typeof content === 'string') named[name] = content;
  }
  return named;
}

/** Added tokens that are marked special, or that the configuration names (Phi-3 does not mark its `</s>`). */
function controlTokens(added: readonly AddedToken[], named: readonly string[]): Map<string, number> {
  const controls = added.filter(token => token.special === true || named.includes(token.content));
  return new Map(controls.map(token => [token.content, token.id]));
}

function templateOf(config: Record<string, unknown>, wanted: 'default' | 'tool_use'): string | null {
  const template = config.chat_template;
  if (typeof template === 'string') return wanted === 'default' ? template : null;
  if (!Array.isArray(template)) return null;
  const entry = template.find(one => (one as { name?: unknown } | null)?.name === wanted) as
    | { template?: unknown }
    | undefined;
  return typeof entry?.template === 'string' ? entry.template : null;
}

/** Tokens over twice the limit after which a text is given up. */
const SLACK = 1024;

const tooLong = (text: string, limit: number): PotluckError =>
  new PotluckError(
    'CONTEXT_TOO_LONG',
    `A text of ${text.length} characters cannot fit ${limit} tokens. Send a shorter one.`,
  );

function concatenate(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
