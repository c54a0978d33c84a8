import { Tokenizer as LibraryTokenizer } from '@huggingface/tokenizers';
import { PotluckError } from '../errors/errors.ts';
import { type ControlText, chooseBreaker, createControlText } from './control-text.ts';
import { createPieceDecoder } from './tokenizer-pieces.ts';

export interface EncodeOptions {
  /** False: text that spells a control token stays text. True: it becomes that token (for rendered templates). */
  readonly special: boolean;
  /** With `special`: the breaker already in the text, see src/model/control-text.ts. */
  readonly breaker?: string;
  /** Most tokens that make sense; a text that is surely longer is refused before work is spent on it. */
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
  /** True where whole texts lose one space at their beginning. */
  readonly stripsLeadingSpace: boolean;
}

interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special?: boolean;
}

interface TokenizerJson {
  readonly model: { type?: string; vocab: Record<string, number>; merges: unknown[]; [key: string]: unknown };
  readonly added_tokens: readonly AddedToken[];
  readonly [key: string]: unknown;
}

const NAMED = ['bos_token', 'eos_token', 'pad_token', 'unk_token'];

/**
 * `tokenizerJson` and `tokenizerConfig` are the parsed files of those names; the first may be garbage afterwards: nothing
 * of it is kept. Throws PACK_INVALID where a part is missing, UNSUPPORTED_MODEL for a tokenizer that is not BPE.
 */
export function createTokenizer(tokenizerJson: unknown, tokenizerConfig: unknown): Tokenizer {
  const json = checked(tokenizerJson);
  const config = typeof tokenizerConfig === 'object' && tokenizerConfig !== null ? tokenizerConfig : {};
  const pieces = createPieceDecoder(json.decoder);
  const named = namedTokens(config as Record<string, unknown>);
  const controls = controlTokens(json.added_tokens, Object.values(named));
  const rule: BreakRule = { breaker: '', controls };
  const library = loadLibrary(json, config, rule);
  const vocab = library.model.vocab;
  const added = new Map(json.added_tokens.map(token => [token.id, token.content]));
  const controlIds = new Set(controls.values());
  const controlText = createControlText([...controls.keys()]);
  const longestPiece = vocab.reduce((most, piece) => Math.max(most, piece?.length ?? 0), 1);
  const encodeBroken = (text: string, breaker: string): number[] => {
    rule.breaker = breaker;
    return text === '' ? [] : library.encode(text, { add_special_tokens: false }).ids;
  };
  const pieceBytes = (id: number): Uint8Array => {
    if (controlIds.has(id)) return new Uint8Array(0);
    const content = added.get(id);
    if (content !== undefined) return new TextEncoder().encode(content);
    const piece = vocab[id];
    if (piece !== undefined) return pieces.bytes(piece);
    // Rows of the logits beyond the tokenizer's vocabulary are padding: they have no text.
    if (Number.isSafeInteger(id) && id >= 0) return new Uint8Array(0);
    throw new PotluckError('BAD_REQUEST', `${id} is not a token id. Ids are whole numbers from 0.`);
  };

  return {
    encode(text, { special, breaker, limit }) {
      if (limit !== undefined) refuseTooLong(text, limit, longestPiece);
      if (special) return encodeBroken(text, breaker ?? '');
      if (!controlText.spells(text)) return encodeBroken(text, '');
      const own = chooseBreaker([text]);
      return encodeBroken(controlText.break(text, own), own);
    },
    decode(ids) {
      const text = new TextDecoder('utf-8', { ignoreBOM: true }).decode(concatenate(ids.map(pieceBytes)));
      return pieces.stripsLeadingSpace && text.startsWith(' ') ? text.slice(1) : text;
    },
    pieceBytes,
    vocabulary: vocab.length,
    controls,
    controlText,
    named,
    chatTemplate: templateOf(config as Record<string, unknown>),
    stripsLeadingSpace: pieces.stripsLeadingSpace,
  };
}

function checked(value: unknown): TokenizerJson {
  const json = value as Partial<TokenizerJson> | null;
  const model = typeof json === 'object' && json !== null ? json.model : undefined;
  if (typeof model !== 'object' || model === null) {
    throw new PotluckError('PACK_INVALID', 'tokenizer.json has no model. Write the pack again.');
  }
  if (model.type !== undefined && model.type !== 'BPE') {
    throw new PotluckError(
      'UNSUPPORTED_MODEL',
      `The tokenizer is of kind ${model.type}. Use a model with a BPE tokenizer.`,
    );
  }
  if (typeof model.vocab !== 'object' || model.vocab === null || !Array.isArray(model.merges)) {
    throw new PotluckError('PACK_INVALID', 'tokenizer.json has no vocab or no merges. Write the pack again.');
  }
  const added = json!.added_tokens ?? [];
  const wellFormed = (token: AddedToken) =>
    Number.isSafeInteger(token?.id) && typeof token.content === 'string';
  if (!Array.isArray(added) || !added.every(wellFormed)) {
    throw new PotluckError(
      'PACK_INVALID',
      'added_tokens of tokenizer.json is malformed. Write the pack again.',
    );
  }
  return { ...(json as TokenizerJson), added_tokens: added };
}

/** Loads the library's tokenizer and drops what it keeps but never reads again: half of its memory. */
function loadLibrary(json: TokenizerJson, config: object, rule: BreakRule): Library {
  const model = { ...json.model, type: 'BPE' };
  const shell = { normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null };
  try {
    // The post-processor would add begin and end tokens, the decoder is src/model/tokenizer-pieces.ts.
    const parts = { ...json, post_processor: null, decoder: null, model };
    const library: Library = new LibraryTokenizer({ ...shell, ...parts }, config);
    library.pre_tokenizer = withoutBreaker(library.pre_tokenizer ?? wordsOf(library.model.vocab), rule);
    library.model.merges = [];
    model.vocab = {};
    model.merges = [];
    return library;
  } catch (error) {
    throw new PotluckError('UNSUPPORTED_MODEL', 'tokenizer.json has a part that is not supported.', {
      cause: error,
    });
  }
}

type PreTokenize = (text: string, options?: object) => string[];

/** What is used of the library's tokenizer; its own declarations do not resolve under nodenext. */
interface Library {
  encode(text: string, options: { add_special_tokens: boolean }): { ids: number[] };
  /** Called with each stretch of text between control tokens, after normalization. */
  pre_tokenizer: PreTokenize | null;
  model: { readonly vocab: readonly (string | undefined)[]; merges: unknown[] };
}

interface BreakRule {
  /** Taken out of every text; '' for none. */
  breaker: string;
  readonly controls: ReadonlyMap<string, number>;
}

/** Runs after control tokens are split off: takes the breaker out, then does what the model's own pre-tokenizer does. */
function withoutBreaker(inner: PreTokenize, rule: BreakRule): PreTokenize {
  return (text, options) => {
    const whole = rule.breaker === '' ? text : text.replaceAll(rule.breaker, '');
    // A piece that is a control token to the letter could be looked up as one.
    return inner(whole, options).flatMap(piece =>
      rule.controls.has(piece) ? [piece[0]!, piece.slice(1)] : [piece],
    );
  };
}

/**
 * For models without a pre-tokenizer, where a text would be one long word: ten times slower than words, which are also cached.
 * Words may be cut off where no token of the vocabulary reaches over the border, which is so for SentencePiece's U+2581.
 */
function wordsOf(vocab: readonly (string | undefined)[]): PreTokenize {
  const crosses = vocab.some(piece => piece !== undefined && /[^\u2581]\u2581/.test(piece));
  return crosses ? text => [text] : text => text.split(/(?<=[^\u2581])(?=\u2581)/);
}

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

function templateOf(config: Record<string, unknown>): string | null {
  const template = config.chat_template;
  if (typeof template === 'string') return template;
  if (!Array.isArray(template)) return null;
  const entry = template.find(one => (one as { name?: unknown } | null)?.name === 'default') as
    | { template?: unknown }
    | undefined;
  return typeof entry?.template === 'string' ? entry.template : null;
}

/** A normalizer may shrink a text (NFC: up to four times), so the bound is that much wider. */
function refuseTooLong(text: string, limit: number, longestPiece: number): void {
  if (text.length <= limit * longestPiece * 4) return;
  throw new PotluckError(
    'CONTEXT_TOO_LONG',
    `A text of ${text.length} characters cannot fit ${limit} tokens. Send a shorter one.`,
  );
}

function concatenate(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
