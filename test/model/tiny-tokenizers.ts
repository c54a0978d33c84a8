import { tokenizerOfJson } from '../../src/model/pack-tokenizer.ts';
import type { Tokenizer } from '../../src/model/tokenizer.ts';

const CONTROLS = ['<|endoftext|>', '<|im_start|>', '<|im_end|>'];

const added = (controls: readonly string[]) =>
  controls.map((content, id) => ({ id, content, special: true, normalized: false }));

/** Control tokens from 0 on, then one token for each byte, then a few merges. */
export const byteLevelTokenizer = (
  model: object = {},
  preTokenizer: object = {},
  controls: readonly string[] = CONTROLS,
): Tokenizer => tokenizerOfJson(byteLevelJson(model, preTokenizer, controls), { eos_token: '<|im_end|>' });

/** Tokens of byteLevelJson. */
export const BYTE_LEVEL_TOKENS = 3 + 256 + 8;

/** A tokenizer.json. */
export function byteLevelJson(
  model: object = {},
  preTokenizer: object = {},
  controls: readonly string[] = CONTROLS,
): object {
  const characters = [...Array(256).keys()].map(byteCharacter);
  const merges = ['h e', 'l l', 'he ll', 'hell o', 'Ġ t', 'Ã ©', '< |', '| >'];
  const pieces = [...controls, ...characters, ...merges.map(merge => merge.replace(' ', ''))];
  return {
    added_tokens: added(controls),
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, use_regex: true, ...preTokenizer },
    post_processor: null,
    decoder: { type: 'ByteLevel' },
    model: {
      type: 'BPE',
      vocab: Object.fromEntries(pieces.map((piece, id) => [piece, id])),
      merges,
      ...model,
    },
  };
}

/** As Llama 2 does it: a space before every text, spaces as U+2581, bytes as `<0xHH>`. */
export function byteFallbackTokenizer(
  furtherMerges: readonly string[] = [],
  furtherTokens: readonly object[] = [],
): Tokenizer {
  const bytes = [...Array(256).keys()].map(byte => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`);
  const merges = ['▁ t', '▁t h', '▁th e', 'h e', 'i m', ...furtherMerges];
  const pieces = [
    ...CONTROLS,
    ...bytes,
    ...'▁abcdefghimt<|>_',
    ...merges.map(merge => merge.replace(' ', '')),
  ];
  return tokenizerOfJson(
    {
      added_tokens: [...added(CONTROLS), ...furtherTokens],
      normalizer: {
        type: 'Sequence',
        normalizers: [
          { type: 'Prepend', prepend: '▁' },
          { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
        ],
      },
      pre_tokenizer: null,
      post_processor: null,
      decoder: {
        type: 'Sequence',
        decoders: [
          { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
          { type: 'ByteFallback' },
          { type: 'Fuse' },
          { type: 'Strip', content: ' ', start: 1, stop: 0 },
        ],
      },
      model: {
        type: 'BPE',
        byte_fallback: true,
        vocab: Object.fromEntries(pieces.map((piece, id) => [piece, id])),
        merges,
      },
    },
    { eos_token: '<|im_end|>' },
  );
}

function byteCharacter(byte: number): string {
  const printable = (b: number) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  if (printable(byte)) return String.fromCharCode(byte);
  const before = [...Array(byte).keys()].filter(b => !printable(b)).length;
  return String.fromCharCode(256 + before);
}
