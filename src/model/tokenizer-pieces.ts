import { PotluckError } from '../errors/errors.ts';

/**
 * The bytes that a token stands for. Two families of vocabularies: byte-level BPE, where every character of a piece is
 * one byte (GPT-2's table), and SentencePiece with byte fallback, where a piece is text with U+2581 for a space and
 * `<0x0A>` is a single byte.
 */
export interface PieceDecoder {
  /** Bytes of a vocabulary piece; [bytes of the piece]. */
  bytes(piece: string): Uint8Array;
  /** Bytes of an added token, which stands in the text as it is; its U+2581 is a space where pieces have them, too. */
  addedBytes(content: string): Uint8Array;
  /** True where the decoder takes one space from the beginning of a whole text. */
  readonly stripsLeadingSpace: boolean;
}

interface DecoderConfig {
  readonly type: string;
  readonly decoders?: readonly DecoderConfig[];
  readonly pattern?: { readonly String?: string };
  readonly content?: string;
  readonly start?: number;
  readonly replacement?: string;
  readonly prepend_scheme?: string;
  readonly add_prefix_space?: boolean;
}

const UTF8 = new TextEncoder();
const BYTE_PIECE = /^<0x([0-9A-Fa-f]{2})>$/;

/** Reads the `decoder` of a tokenizer.json. Throws UNSUPPORTED_MODEL for a kind that is neither of the two families. */
export function createPieceDecoder(config: unknown): PieceDecoder {
  const parts = flatten(config);
  if (parts.some(part => part.type === 'ByteLevel')) return byteLevel;
  return sentencePiece(parts);
}

function flatten(config: unknown): DecoderConfig[] {
  if (typeof config !== 'object' || config === null) return [];
  const decoder = config as DecoderConfig;
  return decoder.type === 'Sequence' ? (decoder.decoders ?? []).flatMap(flatten) : [decoder];
}

const byteOfCharacter = byteLevelTable();

/** The character that stands for each byte in a byte-level vocabulary; [256]. */
export const BYTE_CHARACTERS: readonly string[] = [...byteOfCharacter.keys()];

/** GPT-2's table: printable Latin-1 characters stand for themselves, the others, in order, for U+0100 onwards. */
function byteLevelTable(): ReadonlyMap<string, number> {
  const table = new Map<string, number>();
  let next = 0x100;
  for (let byte = 0; byte < 256; byte++) {
    const printable =
      (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
    table.set(String.fromCharCode(printable ? byte : next++), byte);
  }
  return table;
}

const byteLevel: PieceDecoder = {
  stripsLeadingSpace: false,
  addedBytes: content => UTF8.encode(content),
  bytes(piece) {
    const bytes = new Uint8Array(piece.length);
    for (let i = 0; i < piece.length; i++) {
      const byte = byteOfCharacter.get(piece[i]!);
      if (byte === undefined) return UTF8.encode(piece);
      bytes[i] = byte;
    }
    return bytes;
  },
};

function sentencePiece(parts: readonly DecoderConfig[]): PieceDecoder {
  const replacements: [from: string, to: string][] = [];
  let byteFallback = false;
  let stripsLeadingSpace = false;
  for (const part of parts) {
    if (part.type === 'Replace' && part.pattern?.String !== undefined) {
      replacements.push([part.pattern.String, part.content ?? '']);
    } else if (part.type === 'Metaspace') {
      replacements.push([part.replacement ?? '\u2581', ' ']);
      stripsLeadingSpace = (part.prepend_scheme ?? 'always') !== 'never' && part.add_prefix_space !== false;
    } else if (part.type === 'ByteFallback') {
      byteFallback = true;
    } else if (part.type === 'Strip' && part.content === ' ') {
      stripsLeadingSpace = (part.start ?? 0) > 0;
    } else if (part.type !== 'Fuse') {
      throw new PotluckError(
        'UNSUPPORTED_MODEL',
        `The tokenizer has a decoder of kind ${part.type}. Use a model with a byte-level or SentencePiece BPE tokenizer.`,
      );
    }
  }
  const bytes = (piece: string): Uint8Array => {
    const byte = byteFallback ? BYTE_PIECE.exec(piece) : null;
    if (byte !== null) return Uint8Array.of(Number.parseInt(byte[1]!, 16));
    return UTF8.encode(replacements.reduce((text, [from, to]) => text.replaceAll(from, to), piece));
  };
  return { stripsLeadingSpace, bytes, addedBytes: bytes };
}
