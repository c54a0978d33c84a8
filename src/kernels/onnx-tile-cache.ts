import { crc32 } from 'node:zlib';
import type { ModelShape, TileKind } from '../pack/manifest.ts';
import { type Panel, tileBytes, tilePanels } from '../pack/tile-shape.ts';
import { productWeights } from './onnx-panels.ts';
import { OnnxProduct, type OrtModule } from './onnx-product.ts';

/** The products of a tile. */
export interface TileProducts {
  /** attention: Q, K and V panels one below the other; ffn: gate and up; head: the rows. */
  readonly into: OnnxProduct;
  /** attention: O; ffn: down; head: none. */
  readonly outOf: OnnxProduct | undefined;
}

interface Entry {
  readonly kind: TileKind;
  /** CRC-32 of the tile's bytes. */
  readonly sum: number;
  readonly bytes: number;
  readonly products: TileProducts;
}

/** Memory of a session beside its weights. */
const SESSION_BYTES = 64 << 10;

/**
 * Converted tiles, by their offset in the weights memory. Tiles that stay are converted once. Tiles that stream share
 * offsets: an offset whose bytes once changed is never kept again, so that the scan of the streamed tiles does not push out those that stay.
 * Nothing is evicted for another: when `limit` bytes are full, further tiles are converted at every use.
 */
export class OnnxTileCache {
  readonly #ort: OrtModule;
  readonly #threads: number;
  readonly #shape: ModelShape;
  readonly #weights: ArrayBuffer;
  readonly #limit: number;
  readonly #entries = new Map<number, Entry>();
  readonly #changing = new Set<number>();
  #bytes = 0;
  #conversions = 0;

  constructor(ort: OrtModule, threads: number, shape: ModelShape, weights: ArrayBuffer, limit: number) {
    this.#ort = ort;
    this.#threads = threads;
    this.#shape = shape;
    this.#weights = weights;
    this.#limit = limit;
  }

  /** Tiles converted so far. */
  get conversions(): number {
    return this.#conversions;
  }

  /** Estimated bytes of the tiles that are kept. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Calls `use` with the products of the tile at `offset`. Throws RangeError where none can be there. */
  async with<T>(kind: TileKind, offset: number, use: (products: TileProducts) => Promise<T>): Promise<T> {
    const length = tileBytes(this.#shape, kind);
    if (offset < 0 || offset % 64 !== 0 || offset + length > this.#weights.byteLength)
      throw new RangeError(`tile offset: ${offset} is not the place of a tile`);
    const tile = new Uint8Array(this.#weights, offset, length);
    const sum = crc32(tile);
    const known = this.#entries.get(offset);
    if (known !== undefined) {
      if (known.sum === sum && known.kind === kind) return use(known.products);
      this.#changing.add(offset);
      await this.#drop(offset, known);
    }
    const products = await this.#convert(kind, tile);
    const bytes = this.#keptBytes(length);
    if (!this.#changing.has(offset) && this.#bytes + bytes <= this.#limit) {
      this.#entries.set(offset, { kind, sum, bytes, products });
      this.#bytes += bytes;
      return use(products);
    }
    try {
      return await use(products);
    } finally {
      await release(products);
    }
  }

  async close(): Promise<void> {
    for (const [offset, entry] of this.#entries) await this.#drop(offset, entry);
  }

  async #drop(offset: number, entry: Entry): Promise<void> {
    this.#entries.delete(offset);
    this.#bytes -= entry.bytes;
    await release(entry.products);
  }

  /** w4: nibbles and scales of twice the size; bf16: float32. */
  #keptBytes(tile: number): number {
    return Math.ceil(tile * (this.#shape.weights === 'w4' ? 1.125 : 2)) + 2 * SESSION_BYTES;
  }

  async #convert(kind: TileKind, tile: Uint8Array): Promise<TileProducts> {
    this.#conversions++;
    const panels = tilePanels(this.#shape, kind);
    const last = kind === 'head' ? undefined : panels.pop();
    const into = await this.#product(tile, panels);
    if (last === undefined) return { into, outOf: undefined };
    try {
      return { into, outOf: await this.#product(tile, [last]) };
    } catch (error) {
      await into.release();
      throw error;
    }
  }

  #product(tile: Uint8Array, panels: readonly Panel[]): Promise<OnnxProduct> {
    return OnnxProduct.create(this.#ort, this.#threads, productWeights(this.#shape.weights, tile, panels));
  }
}

async function release(products: TileProducts): Promise<void> {
  await products.into.release();
  await products.outOf?.release();
}
