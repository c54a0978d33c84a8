import type { OpenFile } from '../../pack/file-system.ts';
import { invalidCheckpoint } from '../checkpoint-error.ts';
import { FileCursor } from './file-cursor.ts';
import { type TensorType, tensorType } from './tensor-types.ts';

/**
 * The header of a GGUF file, versions 2 and 3: metadata and the places of tensors. Every count is compared with what the
 * rest of the file could hold before anything of its size is made.
 */

const MAGIC = 0x46554747; // 'GGUF'
/** Most bytes of the header: names, metadata and vocabulary. */
const HEADER_BYTES = 2 ** 28;
const MOST_KEYS = 2 ** 16;
const MOST_TENSORS = 2 ** 18;
const MOST_NAME = 2 ** 16 - 1;
/** Most elements of all arrays together. */
const MOST_ELEMENTS = 2 ** 24;
const MOST_DIMENSIONS = 4;

export type MetadataValue =
  | string
  | number
  | boolean
  | readonly string[]
  | readonly number[]
  | readonly boolean[];
export type Metadata = ReadonlyMap<string, MetadataValue>;

export interface GgufTensor {
  readonly type: TensorType;
  /** As Hugging Face orders them: the last dimension is contiguous. */
  readonly shape: readonly number[];
  /** First byte, from the start of the file. */
  readonly offset: number;
  readonly bytes: number;
}

export interface GgufHeader {
  readonly metadata: Metadata;
  readonly tensors: ReadonlyMap<string, GgufTensor>;
}

/** Reads the header of `file`. Rejects with CHECKPOINT_INVALID, UNSUPPORTED_MODEL or DISK_READ. */
export async function readGgufHeader(file: OpenFile, path: string): Promise<GgufHeader> {
  const { size } = await file.stat();
  const reader = new HeaderReader(new FileCursor(file, path, size, HEADER_BYTES));
  const { tensorCount, keyCount } = await reader.counts();
  const metadata = await reader.metadata(keyCount);
  const infos = await reader.tensorInfos(tensorCount);
  const alignment = metadata.get('general.alignment') ?? 32;
  if (typeof alignment !== 'number' || alignment < 8 || alignment > 2 ** 20 || alignment % 8 !== 0)
    throw invalidCheckpoint(path, `general.alignment is ${String(alignment).slice(0, 50)}`);
  const start = Math.ceil(reader.position / alignment) * alignment;
  return { metadata, tensors: place(infos, { start, alignment, size, path }) };
}

interface TensorInfo {
  readonly name: string;
  readonly shape: readonly number[];
  readonly type: TensorType;
  /** From the start of the data. */
  readonly offset: number;
}

class HeaderReader {
  readonly #cursor: FileCursor;
  #elements = 0;

  constructor(cursor: FileCursor) {
    this.#cursor = cursor;
  }

  get position(): number {
    return this.#cursor.position;
  }

  async counts(): Promise<{ tensorCount: number; keyCount: number }> {
    if (this.#cursor.left < 24 || (await this.#u32()) !== MAGIC) throw this.#wrong('is not a GGUF file');
    const version = await this.#u32();
    if (version !== 2 && version !== 3)
      throw this.#wrong(
        (version & 0xffff) === 0
          ? 'is a big-endian GGUF file; use a little-endian one'
          : `is GGUF version ${version}; 2 and 3 can be read`,
      );
    const tensorCount = await this.#count('tensors', MOST_TENSORS, 24);
    const keyCount = await this.#count('metadata keys', MOST_KEYS, 13);
    return { tensorCount, keyCount };
  }

  async metadata(count: number): Promise<Map<string, MetadataValue>> {
    const metadata = new Map<string, MetadataValue>();
    for (let i = 0; i < count; i++) {
      const key = await this.#string(MOST_NAME);
      if (metadata.has(key)) throw this.#wrong(`has the key ${JSON.stringify(key.slice(0, 100))} twice`);
      const type = await this.#u32();
      metadata.set(key, type === ARRAY ? await this.#array(key) : await this.#value(type, key));
    }
    return metadata;
  }

  async tensorInfos(count: number): Promise<TensorInfo[]> {
    const infos: TensorInfo[] = [];
    const names = new Set<string>();
    for (let i = 0; i < count; i++) {
      const name = await this.#string(MOST_NAME);
      if (names.has(name)) throw this.#wrong(`has tensor ${JSON.stringify(name.slice(0, 100))} twice`);
      names.add(name);
      const dimensions = await this.#u32();
      if (dimensions > MOST_DIMENSIONS)
        throw this.#wrong(`tensor ${JSON.stringify(name.slice(0, 100))} has ${dimensions} dimensions`);
      const shape: number[] = [];
      for (let d = 0; d < dimensions; d++)
        shape.unshift(await this.#u64(`a dimension of ${name.slice(0, 100)}`));
      const type = tensorType(await this.#u32(), this.#cursor.path, name);
      infos.push({ name, shape, type, offset: await this.#u64(`the offset of ${name.slice(0, 100)}`) });
    }
    return infos;
  }

  #wrong(reason: string): Error {
    return invalidCheckpoint(this.#cursor.path, reason);
  }

  /** A count of things that take at least `leastBytes` bytes each. */
  async #count(what: string, most: number, leastBytes: number): Promise<number> {
    const count = await this.#u64(`the count of ${what}`);
    if (count > most || count * leastBytes > this.#cursor.left)
      throw this.#wrong(`says it has ${count} ${what}, more than it can hold`);
    return count;
  }

  async #u32(): Promise<number> {
    await this.#cursor.need(4);
    return this.#cursor.number(4, (view, at) => view.getUint32(at, true));
  }

  async #u64(what: string): Promise<number> {
    await this.#cursor.need(8);
    const value = this.#cursor.number(8, (view, at) => view.getBigUint64(at, true));
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw this.#wrong(`${what} is ${value}`);
    return Number(value);
  }

  async #string(most: number): Promise<string> {
    const length = await this.#count('bytes of text', most, 1);
    await this.#cursor.need(length);
    // Tokens may be parts of characters: what is not UTF-8 becomes U+FFFD.
    return new TextDecoder('utf-8', { ignoreBOM: true }).decode(this.#cursor.take(length));
  }

  async #value(type: number, key: string): Promise<string | number | boolean> {
    if (type === STRING) return this.#string(HEADER_BYTES);
    const scalar = SCALARS[type];
    if (!scalar) throw this.#wrong(`key ${JSON.stringify(key.slice(0, 100))} has the unknown type ${type}`);
    await this.#cursor.need(scalar.bytes);
    return this.#cursor.number(scalar.bytes, scalar.read);
  }

  async #array(key: string): Promise<MetadataValue> {
    const type = await this.#u32();
    const scalar = SCALARS[type];
    if (type !== STRING && !scalar)
      throw this.#wrong(`key ${JSON.stringify(key.slice(0, 100))} is a list of the unknown type ${type}`);
    const count = await this.#count(
      `elements of ${JSON.stringify(key.slice(0, 100))}`,
      MOST_ELEMENTS,
      scalar?.bytes ?? 8,
    );
    this.#elements += count;
    if (this.#elements > MOST_ELEMENTS) throw this.#wrong(`has lists of more than ${MOST_ELEMENTS} elements`);
    const values: (string | number | boolean)[] = [];
    for (let i = 0; i < count; i++) values.push(await this.#value(type, key));
    return values as MetadataValue;
  }
}

const STRING = 8;
const ARRAY = 9;

interface Scalar {
  readonly bytes: number;
  readonly read: (view: DataView, at: number) => number | boolean;
}

/** By the numbers that the format gives them. */
const SCALARS: Readonly<Record<number, Scalar>> = {
  0: { bytes: 1, read: (view, at) => view.getUint8(at) },
  1: { bytes: 1, read: (view, at) => view.getInt8(at) },
  2: { bytes: 2, read: (view, at) => view.getUint16(at, true) },
  3: { bytes: 2, read: (view, at) => view.getInt16(at, true) },
  4: { bytes: 4, read: (view, at) => view.getUint32(at, true) },
  5: { bytes: 4, read: (view, at) => view.getInt32(at, true) },
  6: { bytes: 4, read: (view, at) => view.getFloat32(at, true) },
  7: { bytes: 1, read: (view, at) => view.getUint8(at) !== 0 },
  10: { bytes: 8, read: (view, at) => Number(view.getBigUint64(at, true)) },
  11: { bytes: 8, read: (view, at) => Number(view.getBigInt64(at, true)) },
  12: { bytes: 8, read: (view, at) => view.getFloat64(at, true) },
};

/** Where the tensors lie: aligned, inside the file, none over another. Throws CHECKPOINT_INVALID. */
function place(
  infos: readonly TensorInfo[],
  file: { start: number; alignment: number; size: number; path: string },
): Map<string, GgufTensor> {
  const tensors = new Map<string, GgufTensor>();
  for (const { name, shape, type, offset } of infos) {
    const wrong = (reason: string) =>
      invalidCheckpoint(file.path, `tensor ${JSON.stringify(name.slice(0, 100))} ${reason}`);
    const elements = shape.reduce((product, n) => product * BigInt(n), 1n);
    const rowElements = shape.at(-1) ?? 1;
    if (rowElements % type.blockElements !== 0)
      throw wrong(`has rows of ${rowElements} elements, which are no whole blocks of ${type.name}`);
    const bytes = (elements / BigInt(type.blockElements)) * BigInt(type.blockBytes);
    if (offset % file.alignment !== 0)
      throw wrong(`begins at byte ${offset}, not at a multiple of ${file.alignment}`);
    if (BigInt(file.start) + BigInt(offset) + bytes > BigInt(file.size))
      throw wrong('reaches over the end of the file');
    tensors.set(name, { type, shape, offset: file.start + offset, bytes: Number(bytes) });
  }
  const inOrder = [...tensors].sort(([, a], [, b]) => a.offset - b.offset || a.bytes - b.bytes);
  let end = file.start;
  for (const [name, tensor] of inOrder) {
    if (tensor.offset < end && tensor.bytes > 0)
      throw invalidCheckpoint(file.path, `tensor ${JSON.stringify(name.slice(0, 100))} overlaps another`);
    end = Math.max(end, tensor.offset + tensor.bytes);
  }
  return tensors;
}
