import { PotluckError } from '../errors/errors.ts';
import { invalidCheckpoint } from './checkpoint-error.ts';
import { scoredTokenizer, TokenKind, type VocabularyToken } from './scored-tokenizer.ts';

/**
 * SentencePiece's tokenizer.model, a protocol buffer (encoding: protobuf.dev/programming-guides/encoding), in the form of
 * tokenizer.json. Only the few fields that matter are read; every length is checked against the bytes that are left.
 */

const MOST_PIECES = 2 ** 22;
/** model_type of trainer_spec. */
const UNIGRAM = 1;
const BPE = 2;

interface ModelFile {
  readonly pieces: VocabularyToken[];
  type: number;
  charsmap: Uint8Array;
  dummyPrefix: boolean;
  removesSpaces: boolean;
  /** Id of the begin token; a file that has none says -1. */
  begin: number;
}

/**
 * tokenizer.json of the bytes of a tokenizer.model; `path` names it. Throws CHECKPOINT_INVALID, or UNSUPPORTED_MODEL for
 * what is neither BPE nor Unigram.
 */
export function sentencePieceTokenizer(bytes: Uint8Array, path: string): object {
  const file = readModelFile(bytes, path);
  if (file.type !== UNIGRAM && file.type !== BPE)
    throw new PotluckError(
      'UNSUPPORTED_MODEL',
      `${path}: is a SentencePiece model of type ${file.type}. Supported: 1 (unigram) and 2 (BPE).`,
    );
  const normalizers = [
    ...(file.charsmap.length > 0
      ? [{ type: 'Precompiled', precompiled_charsmap: Buffer.from(file.charsmap).toString('base64') }]
      : []),
    ...(file.removesSpaces
      ? [
          { type: 'Strip', strip_left: true, strip_right: true },
          { type: 'Replace', pattern: { Regex: ' {2,}' }, content: ' ' },
        ]
      : []),
  ];
  const json = scoredTokenizer(file.type === BPE ? 'BPE' : 'Unigram', file.pieces, {
    spaceBefore: file.dummyPrefix,
    normalizers,
  });
  const begin = file.pieces[file.begin];
  if (begin?.kind !== TokenKind.Control) return json;
  const single = [{ SpecialToken: { id: begin.text, type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }];
  return { ...json, post_processor: { type: 'TemplateProcessing', single } };
}

/** ModelProto: 1 pieces, 2 trainer_spec, 3 normalizer_spec. */
function readModelFile(bytes: Uint8Array, path: string): ModelFile {
  const file: ModelFile = {
    pieces: [],
    type: UNIGRAM,
    charsmap: new Uint8Array(0),
    dummyPrefix: true,
    removesSpaces: true,
    begin: 1,
  };
  for (const field of fieldsOf(bytes, path)) {
    if (field.number === 1) {
      file.pieces.push(readPiece(field.bytes, path));
      if (file.pieces.length > MOST_PIECES)
        throw invalidCheckpoint(path, `has more than ${MOST_PIECES} pieces`);
    } else if (field.number === 2) {
      for (const { number, value } of fieldsOf(field.bytes, path)) {
        if (number === 3) file.type = value;
        if (number === 41) file.begin = value;
      }
    } else if (field.number === 3) {
      for (const { number, value, bytes: text } of fieldsOf(field.bytes, path)) {
        if (number === 2) file.charsmap = text;
        if (number === 3) file.dummyPrefix = value !== 0;
        if (number === 4) file.removesSpaces = value !== 0;
      }
    }
  }
  if (file.pieces.length === 0)
    throw invalidCheckpoint(path, 'has no pieces: it is not a SentencePiece model');
  return file;
}

/** SentencePiece: 1 piece, 2 score, 3 type. */
function readPiece(bytes: Uint8Array, path: string): VocabularyToken {
  let text = '';
  let score = 0;
  let kind: number = TokenKind.Normal;
  for (const field of fieldsOf(bytes, path)) {
    if (field.number === 1) text = new TextDecoder('utf-8', { ignoreBOM: true }).decode(field.bytes);
    if (field.number === 2 && field.bytes.length === 4)
      score = new DataView(field.bytes.buffer, field.bytes.byteOffset).getFloat32(0, true);
    if (field.number === 3) kind = field.value;
  }
  if (!Number.isFinite(score)) throw invalidCheckpoint(path, 'has a piece whose score is no number');
  return { text, score, kind };
}

interface Field {
  readonly number: number;
  /** Of a varint. */
  readonly value: number;
  /** Of anything else. */
  readonly bytes: Uint8Array;
}

const NO_BYTES = new Uint8Array(0);

function* fieldsOf(bytes: Uint8Array, path: string): Iterable<Field> {
  let at = 0;
  const wrong = (reason: string): PotluckError =>
    invalidCheckpoint(path, `${reason} at byte ${at}: it is not a SentencePiece model`);
  const varint = (): number => {
    let value = 0;
    for (let i = 0; i < 10; i++) {
      const byte = bytes[at++];
      if (byte === undefined) throw wrong('ends inside a number');
      value += (byte & 127) * 2 ** (7 * i);
      if (byte < 128) return value;
    }
    throw wrong('has an endless number');
  };
  const take = (length: number): Uint8Array => {
    if (length > bytes.length - at) throw wrong(`wants ${length} bytes where ${bytes.length - at} are left`);
    at += length;
    return bytes.subarray(at - length, at);
  };
  while (at < bytes.length) {
    const key = varint();
    const number = Math.floor(key / 8);
    const wire = key % 8;
    if (wire === 0) yield { number, value: varint(), bytes: NO_BYTES };
    else if (wire === 1) yield { number, value: 0, bytes: take(8) };
    else if (wire === 2) yield { number, value: 0, bytes: take(varint()) };
    else if (wire === 5) yield { number, value: 0, bytes: take(4) };
    else throw wrong(`has a field of kind ${wire}`);
  }
}
