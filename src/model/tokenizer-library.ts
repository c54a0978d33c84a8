import { Tokenizer as LibraryTokenizer } from '@huggingface/tokenizers';
import { PotluckError } from '../errors/errors.ts';
import type { Vocabulary } from './vocabulary.ts';

/** What the library does of a tokenizer.json: everything before words become pieces. */
export interface TokenizerLibrary {
  /** Cuts out added tokens and normalizes what lies between them; calls back in the order of the text. */
  sections(text: string, onText: (section: string) => void, onAdded: (id: number) => void): void;
  /** The words of a stretch of normalized text, some at a time. */
  words(section: string): Iterable<readonly string[]>;
}

interface TokenizerParts {
  readonly added_tokens: readonly { readonly content: string }[];
  readonly [key: string]: unknown;
}

interface PreTokenize {
  (text: string, options?: object): string[];
  /** Parts of a sequence. */
  readonly tokenizers?: readonly PreTokenize[];
  /** Of ByteLevel: whether it cuts text into words, and by what. */
  readonly use_regex?: boolean;
  pattern?: RegExp;
}

/** What is used of the library's tokenizer; its own declarations do not resolve under nodenext. */
interface Library {
  /** Added tokens, and what `model` makes of the words of each stretch between them. */
  encode_text(text: string): (string | Section)[];
  /** Also by what normalizing makes of their contents. */
  added_tokens_map: ReadonlyMap<string, { readonly id: number }>;
  pre_tokenizer: PreTokenize | null;
  model: unknown;
}

/** A stretch of normalized text; an object, so that it is never taken for an added token. */
interface Section {
  readonly text: string;
  /** How many stretches of text, added tokens counted, lie before it. */
  readonly index: number;
}

/** Throws UNSUPPORTED_MODEL for a part that the library does not know. */
export function loadLibrary(json: TokenizerParts, vocabulary: Vocabulary): TokenizerLibrary {
  let library: Library;
  try {
    // The post-processor would add begin and end tokens; the decoder is tokenizer-pieces.ts, the model token-model.ts.
    const shell = { normalizer: null, pre_tokenizer: null };
    const rest = { post_processor: null, decoder: null, model: { type: 'BPE', vocab: {}, merges: [] } };
    library = new LibraryTokenizer({ ...shell, ...corrected(json), ...rest }, {});
  } catch (error) {
    throw new PotluckError('UNSUPPORTED_MODEL', 'tokenizer.json has a part that is not supported.', {
      cause: error,
    });
  }
  if (library.pre_tokenizer) correctWords(library.pre_tokenizer);
  const inner = library.pre_tokenizer ?? wordsOf(vocabulary);
  const cuts = cutsBeforeSpaces(inner);
  let index = 0;
  library.pre_tokenizer = (text, options) => {
    index = (options as { section_index?: number } | undefined)?.section_index ?? 0;
    return [text];
  };
  library.model = ([text]: [string]): Section[] => [{ text, index }];
  let current = 0;
  return {
    sections(text, onText, onAdded) {
      for (const part of library.encode_text(text)) {
        if (typeof part === 'string') {
          onAdded(library.added_tokens_map.get(part)!.id);
        } else {
          current = part.index;
          onText(part.text);
        }
      }
    },
    *words(section) {
      for (const part of cuts ? partsOf(section) : [section]) yield inner(part, { section_index: current });
    },
  };
}

/** Characters of a part of a long text, about. */
const PART = 2 ** 15;
const BEFORE_SPACE = /(?<=[A-Za-z])(?= [A-Za-z])/g;

/** Cuts a text before spaces between letters, so that a long one can be given up in the middle. */
function* partsOf(text: string): Iterable<string> {
  let from = 0;
  while (text.length - from > PART) {
    BEFORE_SPACE.lastIndex = from + PART;
    const cut = BEFORE_SPACE.exec(text)?.index;
    if (cut === undefined) break;
    yield text.slice(from, cut);
    from = cut;
  }
  yield text.slice(from);
}

/** Whether words never reach over a space between letters: true of all patterns in use but those of a few models. */
function cutsBeforeSpaces(preTokenize: PreTokenize): boolean {
  const words = (text: string): string => JSON.stringify(preTokenize(text, { section_index: 0 }));
  return ['ab cd', 'I am', "it's A b C", 'x of the y'].every(text => {
    const parts = text.split(BEFORE_SPACE);
    return words(text) === JSON.stringify(parts.flatMap(part => JSON.parse(words(part)) as string[]));
  });
}

/** tokenizer.json with those parts that the library reads otherwise than its makers put in other words. */
function corrected(json: TokenizerParts): TokenizerParts {
  return { ...json, pre_tokenizer: correctedPreTokenizer(json.pre_tokenizer) };
}

const split = (pattern: string): object => ({
  type: 'Split',
  pattern: { Regex: pattern },
  behavior: 'Isolated',
  invert: false,
});
const PUNCTUATION = '[\\p{P}!-\\/:-@\\[-`{-~]';

function correctedPreTokenizer(part: unknown): unknown {
  if (typeof part !== 'object' || part === null) return part ?? null;
  const { type, pretokenizers, individual_digits, behavior } = part as Record<string, unknown>;
  if (type === 'Sequence' && Array.isArray(pretokenizers))
    return { type, pretokenizers: pretokenizers.map(correctedPreTokenizer) };
  // Numbers of every script, not 0 to 9 alone.
  if (type === 'Digits') return split(individual_digits === true ? '\\p{N}' : '\\p{N}+');
  // Each sign by itself, unless runs are asked for.
  if (type === 'Punctuation' && (behavior ?? 'Isolated') === 'Isolated') return split(PUNCTUATION);
  if (type === 'Punctuation' && behavior === 'Contiguous') return split(`${PUNCTUATION}+`);
  return part;
}

const GPT2_WORDS =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

/** ByteLevel cuts by Unicode's white space; JavaScript's \s has U+FEFF and lacks U+0085. */
function correctWords(part: PreTokenize): void {
  part.tokenizers?.forEach(correctWords);
  if (part.use_regex === true) part.pattern = GPT2_WORDS;
}

/**
 * For models without a pre-tokenizer, where a text would be one long word: ten times slower than words, which are also cached.
 * Words may be cut off where no token of the vocabulary reaches over the border, which is so for SentencePiece's U+2581.
 */
function wordsOf(vocabulary: Vocabulary): PreTokenize {
  return crossesWords(vocabulary) ? text => [text] : text => text.split(/(?<=[^\u2581])(?=\u2581)/);
}

/** Whether some piece has U+2581 behind another character. */
function crossesWords({ arrays: { texts, offsets } }: Vocabulary): boolean {
  const isMark = (at: number): boolean =>
    texts[at] === 0xe2 && texts[at + 1] === 0x96 && texts[at + 2] === 0x81;
  for (let id = 0; id + 1 < offsets.length; id++)
    for (let at = offsets[id]! + 1; at < offsets[id + 1]!; at++)
      if (isMark(at) && !(at - 3 >= offsets[id]! && isMark(at - 3))) return true;
  return false;
}
