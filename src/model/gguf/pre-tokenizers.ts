import { PotluckError } from '../../errors/errors.ts';

/**
 * A GGUF file names the way its vocabulary cuts text into words (`tokenizer.ggml.pre`); here is what tokenizer.json says
 * for each name. Patterns are those that the makers of the models publish.
 */
export interface PreTokenizer {
  readonly normalizer: object | null;
  readonly preTokenizer: object;
  /** Words that are in the vocabulary whole are not merged from parts. */
  readonly ignoreMerges: boolean;
  /** Texts begin with the begin token where the file does not say it. */
  readonly addsBegin: boolean;
}

const split = (pattern: string, behavior = 'Isolated'): object => ({
  type: 'Split',
  pattern: { Regex: pattern },
  behavior,
  invert: false,
});
const BYTES = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false };
const GPT2_WORDS = { ...BYTES, use_regex: true };
const sequence = (...pretokenizers: object[]): object => ({ type: 'Sequence', pretokenizers });
const digits = (each: boolean): object => ({ type: 'Digits', individual_digits: each });

const CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const LETTERS = '[^\\r\\n\\p{L}\\p{N}]?\\p{L}+';
const SIGNS = ' ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*';
const SPACES = '\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+';
const LLAMA3 = `${CONTRACTIONS}|${LETTERS}|\\p{N}{1,3}|${SIGNS}|${SPACES}`;
const QWEN2 = `${CONTRACTIONS}|${LETTERS}|\\p{N}|${SIGNS}|${SPACES}`;
const SEED = `${CONTRACTIONS}|${LETTERS}|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|${SPACES}`;
const BAILING = `'(?i:[sdmt]|ll|ve|re)|${LETTERS}|\\p{N}|${SIGNS}|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+`;
/** Words of letters in two cases: (upper)* (lower)+ or (upper)+ (lower)*, and what may follow them. */
const cased = (ending: string): string =>
  `[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+${ending}|` +
  `[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*${ending}`;
const CASED_SIGNS = ' ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*';
const TEKKEN = `${cased('')}|\\p{N}|${CASED_SIGNS}|${SPACES}`;
const GPT4O = `${cased(`${CONTRACTIONS}?`)}|\\p{N}{1,3}|${CASED_SIGNS}|${SPACES}`;
const CJK_V3 = '[一-龥\u3040-ゟ゠-ヿ]+';
const DEEPSEEK_V3 =
  '[!"#$%&\'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|' +
  ` ?[\\p{P}\\p{S}]+[\\r\\n]*|${SPACES}`;
const CJK = '[一-龥ࠀ-一가-\ud7ff]+';
const LATIN_GREEK_CYRILLIC =
  '\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+';
const BLOOM = ' ?[^(\\s|[.,!?…。，、।۔،])]+';

const plain = (preTokenizer: object): PreTokenizer => ({
  normalizer: null,
  preTokenizer,
  ignoreMerges: false,
  addsBegin: false,
});
const words = (pattern: string): PreTokenizer => plain(sequence(split(pattern), BYTES));
const llama3: PreTokenizer = { ...words(LLAMA3), ignoreMerges: true, addsBegin: true };
const qwen2: PreTokenizer = { ...words(QWEN2), normalizer: { type: 'NFC' } };
const gpt2 = plain(GPT2_WORDS);
const eachDigit = plain(sequence(digits(true), GPT2_WORDS));

const BY_NAME: Readonly<Record<string, PreTokenizer>> = {
  default: plain(
    sequence(
      split('[\\p{P}\\$\\+<=>\\^~\\|]+'),
      { ...GPT2_WORDS, use_regex: true },
      split('[0-9][0-9][0-9]'),
    ),
  ),
  'gpt-2': gpt2,
  'phi-2': gpt2,
  mpt: gpt2,
  olmo: gpt2,
  jais: gpt2,
  trillion: gpt2,
  'roberta-bpe': gpt2,
  'granite-docling': gpt2,
  'llama-bpe': llama3,
  llama3,
  'llama-v3': llama3,
  falcon3: llama3,
  'falcon-h1': llama3,
  lfm2: llama3,
  dbrx: words(LLAMA3),
  'smaug-bpe': words(LLAMA3),
  'chatglm-bpe': words(LLAMA3),
  qwen2,
  'deepseek-r1-qwen': qwen2,
  megrez: qwen2,
  hunyuan: words(QWEN2),
  stablelm2: words(QWEN2),
  'solar-open': words(QWEN2),
  'seed-coder': words(SEED),
  bailingmoe: words(BAILING),
  tekken: { ...words(TEKKEN), ignoreMerges: true, addsBegin: true },
  'gpt-4o': words(GPT4O),
  llama4: words(GPT4O),
  'deepseek-llm': plain(
    sequence(
      split('[\\r\\n]'),
      split(LATIN_GREEK_CYRILLIC),
      split('\\s?[!-/:-~！-／：-～‘-‟\u3000-。]+'),
      split('\\s+$'),
      split(CJK),
      digits(true),
      BYTES,
    ),
  ),
  'deepseek-coder': plain(
    sequence(split('[\\r\\n]'), split('\\s?\\p{L}+'), split('\\s?\\p{P}+'), split(CJK), digits(true), BYTES),
  ),
  'deepseek-v3': plain(sequence(split('\\p{N}{1,3}'), split(CJK_V3), split(DEEPSEEK_V3), BYTES)),
  falcon: plain(
    sequence({ type: 'Punctuation', behavior: 'Contiguous' }, GPT2_WORDS, split('[0-9][0-9][0-9]')),
  ),
  starcoder: eachDigit,
  refact: eachDigit,
  'command-r': { ...eachDigit, normalizer: { type: 'NFC' } },
  smollm: eachDigit,
  codeshell: eachDigit,
  exaone: eachDigit,
  'minerva-7b': eachDigit,
  bloom: words(BLOOM),
  'poro-chat': words(BLOOM),
  'gpt3-finnish': words(BLOOM),
  viking: plain(sequence(split(BLOOM), digits(true), BYTES)),
};

/** Throws UNSUPPORTED_MODEL for a name that is not in the list. */
export function preTokenizerByName(name: string, path: string): PreTokenizer {
  const found = Object.hasOwn(BY_NAME, name) ? BY_NAME[name] : undefined;
  if (found) return found;
  throw new PotluckError(
    'UNSUPPORTED_MODEL',
    `${path}: cuts text into words as ${JSON.stringify(name.slice(0, 100))} does. Supported: ${Object.keys(BY_NAME).join(', ')}. Give the folder with the model's tokenizer.json instead.`,
  );
}
