import { floatToHalf } from '../../../src/pack/number-formats.ts';

/** Metadata of a GGUF file to write. Numbers become float64 or, by a name that tells, uint32. */
export type Value =
  | string
  | boolean
  | { readonly u32: number }
  | { readonly f32: number }
  | { readonly strings: readonly string[] }
  | { readonly bools: readonly boolean[] }
  | { readonly i32s: readonly number[] }
  | { readonly f32s: readonly number[] };

export interface FileTensor {
  /** ggml's number of the type. */
  readonly type: number;
  /** The last dimension is contiguous. */
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

export const u32 = (value: number): Value => ({ u32: value });
export const f32 = (value: number): Value => ({ f32: value });

class Writer {
  readonly #parts: Uint8Array[] = [];
  length = 0;

  bytes(bytes: Uint8Array): void {
    this.#parts.push(bytes);
    this.length += bytes.length;
  }

  number(size: 4 | 8, set: (view: DataView) => void): void {
    const bytes = new Uint8Array(size);
    set(new DataView(bytes.buffer));
    this.bytes(bytes);
  }

  u32 = (value: number) => this.number(4, view => view.setUint32(0, value, true));
  u64 = (value: number) => this.number(8, view => view.setBigUint64(0, BigInt(value), true));
  f32 = (value: number) => this.number(4, view => view.setFloat32(0, value, true));

  text(text: string): void {
    const bytes = new TextEncoder().encode(text);
    this.u64(bytes.length);
    this.bytes(bytes);
  }

  value(value: Value): void {
    if (typeof value === 'string') {
      this.u32(8);
      this.text(value);
    } else if (typeof value === 'boolean') {
      this.u32(7);
      this.bytes(Uint8Array.of(value ? 1 : 0));
    } else if ('u32' in value) {
      this.u32(4);
      this.u32(value.u32);
    } else if ('f32' in value) {
      this.u32(6);
      this.f32(value.f32);
    } else if ('strings' in value) {
      this.list(8, value.strings, text => this.text(text));
    } else if ('bools' in value) {
      this.list(7, value.bools, one => this.bytes(Uint8Array.of(one ? 1 : 0)));
    } else if ('i32s' in value) {
      this.list(5, value.i32s, one => this.number(4, view => view.setInt32(0, one, true)));
    } else {
      this.list(6, value.f32s, this.f32);
    }
  }

  list<T>(type: number, values: readonly T[], write: (value: T) => void): void {
    this.u32(9);
    this.u32(type);
    this.u64(values.length);
    for (const value of values) write(value);
  }

  pad(): void {
    this.bytes(new Uint8Array((32 - (this.length % 32)) % 32));
  }

  whole(): Uint8Array {
    const whole = new Uint8Array(this.length);
    let at = 0;
    for (const part of this.#parts) {
      whole.set(part, at);
      at += part.length;
    }
    return whole;
  }
}

/** The bytes of a GGUF file, version 3. */
export function ggufBytes(
  metadata: Readonly<Record<string, Value>>,
  tensors: Readonly<Record<string, FileTensor>> = {},
): Uint8Array {
  const writer = new Writer();
  writer.u32(0x46554747);
  writer.u32(3);
  writer.u64(Object.keys(tensors).length);
  writer.u64(Object.keys(metadata).length);
  for (const [key, value] of Object.entries(metadata)) {
    writer.text(key);
    writer.value(value);
  }
  let offset = 0;
  for (const [name, { type, shape, bytes }] of Object.entries(tensors)) {
    writer.text(name);
    writer.u32(shape.length);
    for (const n of shape.toReversed()) writer.u64(n);
    writer.u32(type);
    writer.u64(offset);
    offset += Math.ceil(bytes.length / 32) * 32;
  }
  writer.pad();
  for (const { bytes } of Object.values(tensors)) {
    writer.bytes(bytes);
    writer.pad();
  }
  return writer.whole();
}

export function f32Tensor(shape: readonly number[], values: ArrayLike<number>): FileTensor {
  return { type: 0, shape, bytes: new Uint8Array(Float32Array.from(values).buffer) };
}

export function f16Tensor(shape: readonly number[], values: ArrayLike<number>): FileTensor {
  const halves = Uint16Array.from(Array.from(values), value => floatToHalf(value));
  return { type: 1, shape, bytes: new Uint8Array(halves.buffer) };
}

/** Rows of queries or keys as llama.cpp's converter puts them: [heads, 2, half, columns] -> [heads, half, 2, columns]. */
export function interleaved(values: Float32Array, heads: number, columns: number): Float32Array {
  const half = values.length / columns / heads / 2;
  const result = new Float32Array(values.length);
  for (let h = 0; h < heads; h++)
    for (let side = 0; side < 2; side++)
      for (let j = 0; j < half; j++)
        result.set(
          values.subarray(((h * 2 + side) * half + j) * columns, ((h * 2 + side) * half + j + 1) * columns),
          ((h * half + j) * 2 + side) * columns,
        );
  return result;
}
