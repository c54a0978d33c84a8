import { addon } from './addon-under-test.ts';
import { fromHalf, toHalf } from './number-formats.ts';

export type KvBits = 4 | 8 | 16 | 32;

/**
 * Pages of keys and values of one head, read back by what docs/numerics.md says of their bytes, apart from the addon.
 */
export class KvPages {
  readonly bytes: Uint8Array;
  readonly #pageBytes: number;
  readonly #view: DataView;

  constructor(
    readonly bits: KvBits,
    readonly dim: number,
    pages: number,
  ) {
    this.#pageBytes =
      bits > 8 ? 32 * 2 * dim * (bits / 8) : this.#values + Math.ceil(dim / 16) * this.#plane + 64;
    this.bytes = new Uint8Array(pages * this.#pageBytes);
    this.#view = new DataView(this.bytes.buffer);
  }

  get #plane(): number {
    return (this.bits / 4) * 256;
  }
  get #values(): number {
    return 2 * Math.ceil(this.dim / 32) * (this.#plane + 32);
  }

  half(bits: number): number {
    return fromHalf(bits);
  }

  store(kernel: string, page: number, at: number, key: Float32Array, value: Float32Array): void {
    if (this.bits <= 8) {
      const bytes = this.bytes.subarray(page * this.#pageBytes, (page + 1) * this.#pageBytes);
      addon.testStoreKv(kernel, this.bits === 4 ? 1 : 2, key, value, at, bytes);
      return;
    }
    for (let d = 0; d < this.dim; d++) {
      this.#put(this.#keyAt(page, at, d), key[d]!);
      this.#put(this.#valueAt(page, at, d), value[d]!);
    }
  }

  key(page: number, at: number, d: number): number {
    if (this.bits > 8) return this.#get(this.#keyAt(page, at, d));
    const group = this.#plane + 32;
    const block = page * this.#pageBytes + (at >> 4) * Math.ceil(this.dim / 32) * group + (d >> 5) * group;
    return this.#step(block, at % 16, d % 32) * this.#halfAt(block + this.#plane + (at % 16) * 2);
  }

  value(page: number, at: number, d: number): number {
    if (this.bits > 8) return this.#get(this.#valueAt(page, at, d));
    return this.valueStep(page, at, d) * this.valueScale(page, at);
  }

  valueScale(page: number, at: number): number {
    return this.#halfAt((page + 1) * this.#pageBytes - 64 + at * 2);
  }

  valueStep(page: number, at: number, d: number): number {
    return this.#step(page * this.#pageBytes + this.#values + (d >> 4) * this.#plane, d % 16, at);
  }

  #step(planes: number, row: number, column: number): number {
    const nibble = (plane: number) => {
      const byte = this.bytes[planes + plane * 256 + (column >> 3) * 64 + row * 4 + (column % 4)]!;
      return column % 8 < 4 ? byte & 15 : byte >> 4;
    };
    return this.bits === 4 ? nibble(0) - 8 : nibble(0) * 16 + nibble(1) - 128;
  }

  #halfAt(at: number): number {
    return fromHalf(this.#view.getUint16(at, true));
  }

  /** Index of a channel, counted in channels. */
  #keyAt(page: number, at: number, d: number): number {
    return page * 64 * this.dim + (at >> 4) * 16 * this.dim + d * 16 + (at % 16);
  }

  #valueAt(page: number, at: number, d: number): number {
    return page * 64 * this.dim + (32 + at) * this.dim + d;
  }

  #get(index: number): number {
    return this.bits === 16
      ? fromHalf(this.#view.getUint16(index * 2, true))
      : this.#view.getFloat32(index * 4, true);
  }

  #put(index: number, value: number): void {
    if (this.bits === 16) this.#view.setUint16(index * 2, toHalf(value), true);
    else this.#view.setFloat32(index * 4, value, true);
  }
}
