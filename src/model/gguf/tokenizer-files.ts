import { PotluckError } from '../../errors/errors.ts';
import { invalidCheckpoint } from '../checkpoint-error.ts';
import { scoredTokenizer, TokenKind, type VocabularyToken } from '../scored-tokenizer.ts';
import type { MetadataFields } from './metadata-fields.ts';
import { preTokenizerByName } from './pre-tokenizers.ts';

/** The vocabulary of a GGUF file in the form of the files that Hugging Face has. */
export interface TokenizerFiles {
  readonly tokenizerJson: object;
  readonly tokenizerConfig: object;
  readonly chatTemplate: string | null;
}

/** Most tokens of a vocabulary. */
const MOST_TOKENS = 2 ** 22;

/** Throws CHECKPOINT_INVALID, or UNSUPPORTED_MODEL for a kind of vocabulary that is not known; null where there is none. */
export function tokenizerFiles(fields: MetadataFields): TokenizerFiles | null {
  const model = fields.optionalString('tokenizer.ggml.model');
  if (model === undefined || model === 'none') return null;
  const tokens = readTokens(fields);
  const chatTemplate = fields.optionalString('tokenizer.chat_template') ?? null;
  if (model === 'llama') {
    const spaceBefore = fields.optionalBoolean('tokenizer.ggml.add_space_prefix') ?? true;
    const tokenizerJson = scoredTokenizer('BPE', tokens, { spaceBefore });
    return { tokenizerJson, tokenizerConfig: tokenizerConfig(fields, tokens, true, true), chatTemplate };
  }
  if (model === 'gpt2') {
    const { json, addsBegin } = byteLevelTokenizer(fields, tokens);
    return {
      tokenizerJson: json,
      tokenizerConfig: tokenizerConfig(fields, tokens, addsBegin, false),
      chatTemplate,
    };
  }
  throw new PotluckError(
    'UNSUPPORTED_MODEL',
    `${fields.path}: has a vocabulary of kind ${model.slice(0, 50)}. Supported: llama (SentencePiece BPE), gpt2 (byte-level BPE).`,
  );
}

function readTokens(fields: MetadataFields): VocabularyToken[] {
  const texts = fields.optionalStrings('tokenizer.ggml.tokens');
  if (texts === undefined || texts.length === 0 || texts.length > MOST_TOKENS)
    throw invalidCheckpoint(fields.path, `has ${texts?.length ?? 'no'} tokens in tokenizer.ggml.tokens`);
  const kinds = listOfTokens(fields, 'tokenizer.ggml.token_type', texts.length);
  const scores = listOfTokens(fields, 'tokenizer.ggml.scores', texts.length);
  const removesSpaces = fields.architecture === 'phi3';
  return texts.map((text, id) => {
    const kind = kinds?.[id] ?? TokenKind.Normal;
    // Phi-3 takes the white space behind its control tokens away; the file does not say so.
    const rstrip = removesSpaces && kind === TokenKind.Control && !PHI3_KEEPS_SPACE.has(text);
    return { text, kind, score: scores?.[id] ?? 0, ...(rstrip ? { rstrip } : {}) };
  });
}

const PHI3_KEEPS_SPACE = new Set(['<unk>', '<s>', '<|endoftext|>']);

function listOfTokens(fields: MetadataFields, key: string, count: number): readonly number[] | undefined {
  const list = fields.optionalNumbers(key);
  if (list !== undefined && list.length !== count)
    throw invalidCheckpoint(fields.path, `${key} has ${list.length} entries for ${count} tokens`);
  return list;
}

function byteLevelTokenizer(
  fields: MetadataFields,
  tokens: readonly VocabularyToken[],
): { json: object; addsBegin: boolean } {
  const name = fields.optionalString('tokenizer.ggml.pre') ?? 'default';
  const { normalizer, preTokenizer, ignoreMerges, addsBegin } = preTokenizerByName(name, fields.path);
  const merges = fields.optionalStrings('tokenizer.ggml.merges');
  if (merges === undefined) throw invalidCheckpoint(fields.path, 'has no tokenizer.ggml.merges');
  const json = {
    version: '1.0',
    added_tokens: tokens.flatMap(({ text, kind, rstrip }, id) =>
      kind === TokenKind.Control || kind === TokenKind.UserDefined
        ? [
            {
              id,
              content: text,
              special: kind === TokenKind.Control,
              normalized: false,
              rstrip: rstrip === true,
            },
          ]
        : [],
    ),
    normalizer,
    pre_tokenizer: preTokenizer,
    post_processor: null,
    decoder: { type: 'ByteLevel' },
    model: {
      type: 'BPE',
      ignore_merges: ignoreMerges,
      vocab: Object.fromEntries(tokens.map(({ text }, id) => [text, id])),
      merges,
    },
  };
  return { json, addsBegin };
}

/** What tokenizer_config.json would say. `begins`, `spm`: what files of that kind mean where they do not say it. */
function tokenizerConfig(
  fields: MetadataFields,
  tokens: readonly VocabularyToken[],
  begins: boolean,
  spm: boolean,
): object {
  const named = (key: string, fallback?: number): object => {
    const id = fields.optionalNumber(`tokenizer.ggml.${key}_token_id`) ?? fallback;
    const token = id === undefined ? undefined : tokens[id];
    const name = { bos: 'bos_token', eos: 'eos_token', unknown: 'unk_token', padding: 'pad_token' }[key]!;
    return token === undefined ? {} : { [name]: token.text };
  };
  return {
    ...named('bos', spm ? 1 : undefined),
    ...named('eos', spm ? 2 : undefined),
    ...named('unknown', spm ? 0 : undefined),
    ...named('padding'),
    ...toolTemplate(fields),
    add_bos_token: fields.optionalBoolean('tokenizer.ggml.add_bos_token') ?? begins,
  };
}

/** A template for chats with tools, where the file has one; the usual one is a file of its own. */
function toolTemplate(fields: MetadataFields): object {
  const template = fields.optionalString('tokenizer.chat_template.tool_use');
  return template === undefined ? {} : { chat_template: [{ name: 'tool_use', template }] };
}
