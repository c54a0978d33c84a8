import { invalidCheckpoint } from './checkpoint-error.ts';

/** Bytes of one element of each type that a safetensors file may have. */
const ELEMENT_BYTES: Readonly<Record<string, number>> = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E4M3: 1,
  F8_E5M2: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  I64: 8,
  U64: 8,
  F64: 8,
};

/** Most bytes of a header; the limit of the format's own library. */
export const HEADER_BYTES = 100_000_000;
const MOST_DIMENSIONS = 16;

/** One tensor of a safetensors file. */
export interface TensorEntry {
  readonly dtype: string;
  readonly shape: readonly number[];
  /** First byte, from the start of the file. */
  readonly offset: number;
  readonly bytes: number;
}

/** Length of the header in the first 8 bytes of a file of `fileBytes`. Throws CHECKPOINT_INVALID. */
export function headerLength(first: Uint8Array, fileBytes: number, file: string): number {
  const length = new DataView(first.buffer, first.byteOffset, 8).getBigUint64(0, true);
  if (length > BigInt(HEADER_BYTES))
    throw invalidCheckpoint(file, `a header of ${length} bytes is over the limit of ${HEADER_BYTES}`);
  if (8 + Number(length) > fileBytes)
    throw invalidCheckpoint(file, `a header of ${length} bytes does not fit the file of ${fileBytes}`);
  return Number(length);
}

/**
 * The tensors named in a header (the JSON text behind the first 8 bytes). They must fill the rest of the file without
 * gap or overlap, as the format demands. Throws CHECKPOINT_INVALID.
 */
export function readHeader(header: Uint8Array, fileBytes: number, file: string): Map<string, TensorEntry> {
  const { text, parsed } = parse(header, file);
  const twice = duplicateKey(text);
  if (twice !== undefined) throw invalidCheckpoint(file, `the header has the key ${quote(twice)} twice`);
  const start = 8 + header.length;
  const tensors = new Map<string, TensorEntry>();
  for (const [name, value] of Object.entries(parsed))
    if (name !== '__metadata__') tensors.set(name, readEntry(name, value, start, fileBytes, file));
  checkCoverage(tensors, start, fileBytes, file);
  return tensors;
}

function parse(header: Uint8Array, file: string): { text: string; parsed: object } {
  let text: string;
  let parsed: unknown;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(header);
    parsed = JSON.parse(text);
  } catch (error) {
    throw invalidCheckpoint(file, 'the header is not JSON', error);
  }
  if (!text.startsWith('{') || typeof parsed !== 'object' || parsed === null)
    throw invalidCheckpoint(file, 'the header is not a JSON object');
  return { text, parsed };
}

const quote = (name: string): string => JSON.stringify(name.length > 100 ? `${name.slice(0, 100)}...` : name);

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && Number(value) >= 0;

function readEntry(
  name: string,
  value: unknown,
  start: number,
  fileBytes: number,
  file: string,
): TensorEntry {
  const wrong = (reason: string) => invalidCheckpoint(file, `tensor ${quote(name)}: ${reason}`);
  if (typeof value !== 'object' || value === null) throw wrong('is not described by an object');
  const { dtype, shape, data_offsets: place } = value as Record<string, unknown>;
  const elementBytes =
    typeof dtype === 'string' && Object.hasOwn(ELEMENT_BYTES, dtype) ? ELEMENT_BYTES[dtype] : undefined;
  if (typeof dtype !== 'string' || elementBytes === undefined)
    throw wrong(`its type ${quote(String(dtype))} is not known`);
  if (!Array.isArray(shape) || shape.length > MOST_DIMENSIONS || !shape.every(isCount))
    throw wrong('its shape is not a short list of counts');
  if (!Array.isArray(place) || place.length !== 2 || !place.every(isCount))
    throw wrong('its offsets are not two counts');
  const [from, to] = place as [number, number];
  if (from > to || start + to > fileBytes) throw wrong(`its bytes ${from} to ${to} are not inside the file`);
  const elements = shape.reduce((product: bigint, n: number) => product * BigInt(n), 1n);
  if (elements * BigInt(elementBytes) !== BigInt(to - from))
    throw wrong(`its shape ${JSON.stringify(shape)} of ${dtype} is not ${to - from} bytes`);
  return { dtype, shape: shape as number[], offset: start + from, bytes: to - from };
}

function checkCoverage(
  tensors: Map<string, TensorEntry>,
  start: number,
  fileBytes: number,
  file: string,
): void {
  const inOrder = [...tensors].sort(([, a], [, b]) => a.offset - b.offset || a.bytes - b.bytes);
  let end = start;
  for (const [name, entry] of inOrder) {
    if (entry.offset < end) throw invalidCheckpoint(file, `tensor ${quote(name)} overlaps another`);
    if (entry.offset > end)
      throw invalidCheckpoint(
        file,
        `${entry.offset - end} bytes before tensor ${quote(name)} belong to no tensor`,
      );
    end = entry.offset + entry.bytes;
  }
  if (end !== fileBytes)
    throw invalidCheckpoint(file, `${fileBytes - end} bytes at its end belong to no tensor`);
}

/** The first key that an object of valid JSON text has twice, or undefined. JSON.parse keeps the last and says nothing. */
export function duplicateKey(text: string): string | undefined {
  const open: (Set<string> | undefined)[] = []; // keys of each open object; undefined: an array
  const colon = /[ \t\r\n]*:/y;
  for (let at = 0; at < text.length; at++) {
    const char = text[at];
    if (char === '{') open.push(new Set());
    else if (char === '[') open.push(undefined);
    else if (char === '}' || char === ']') open.pop();
    else if (char === '"') {
      const end = stringEnd(text, at);
      colon.lastIndex = end;
      if (colon.test(text)) {
        const key = String(JSON.parse(text.slice(at, end)));
        const keys = open.at(-1);
        if (keys?.has(key)) return key;
        keys?.add(key);
      }
      at = end - 1;
    }
  }
  return undefined;
}

/** Place behind the JSON string that begins at `start`. */
function stringEnd(text: string, start: number): number {
  let at = start + 1;
  while (text[at] !== '"') at += text[at] === '\\' ? 2 : 1;
  return at + 1;
}
