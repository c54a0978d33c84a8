import { type Rounding, triangleBytes } from '../../kernels/addon.ts';
import type { Panel } from '../../pack/tile-shape.ts';
import { GROUP } from '../../pack/tile-shape.ts';
import { writePaddingRows, writeRoundedRow } from '../cut-panel.ts';

/**
 * What is added to the diagonal of the products, as a part of its mean: how little the calibration's own accidents are
 * believed. 0.01 to 0.2 measured alike.
 */
const DAMPING = 0.05;
/** Rows that are rounded in one call. */
export const ROUNDED_ROWS = 1024;

/** Memory outside the V8 heap, and where it comes from. */
export interface NativeMemory {
  allocate(bytes: number): ArrayBuffer;
  release(memory: ArrayBuffer): void;
}

/** Memory of one size after another, taken anew only where it must grow. */
class Held {
  readonly #memory: NativeMemory;
  #buffer: ArrayBuffer | undefined;

  constructor(memory: NativeMemory) {
    this.#memory = memory;
  }

  /** At least `bytes`; the old content is lost where it grows. */
  take(bytes: number): ArrayBuffer {
    if (this.#buffer && this.#buffer.byteLength >= bytes) return this.#buffer;
    this.close();
    this.#buffer = this.#memory.allocate(bytes);
    return this.#buffer;
  }

  close(): void {
    if (this.#buffer) this.#memory.release(this.#buffer);
    this.#buffer = undefined;
  }
}

/**
 * Rounds panels to 4 bits by the inputs that they see (GPTQ). One set of inputs at a time: `begin`, `add` them all, `factor`,
 * then any number of panels of as many columns.
 */
export class Rounder {
  readonly #addon: Rounding;
  readonly #threads: number;
  readonly #products: Held;
  readonly #inputs: Held;
  readonly #weights: Held;
  readonly #nibbles: Held;
  readonly #scales: Held;
  #columns = 0;

  constructor(addon: Rounding, memory: NativeMemory, threads: number) {
    this.#addon = addon;
    this.#threads = threads;
    this.#products = new Held(memory);
    this.#inputs = new Held(memory);
    this.#weights = new Held(memory);
    this.#nibbles = new Held(memory);
    this.#scales = new Held(memory);
  }

  /** columns: a multiple of 32. */
  begin(columns: number): void {
    this.#columns = columns;
    const bytes = triangleBytes(columns);
    new Float64Array(this.#products.take(bytes), 0, bytes / 8).fill(0);
  }

  /** Where inputs are written before `add`; [tokens, columns]. */
  inputs(tokens: number): Float32Array {
    const floats = tokens * this.#columns;
    return new Float32Array(this.#inputs.take(floats * 4), 0, floats);
  }

  /** Counts the first `tokens` rows of `inputs`. */
  async add(tokens: number): Promise<void> {
    const { buffer } = this.inputs(tokens);
    await this.#addon.addProducts(
      this.#products.take(0),
      this.#columns,
      buffer as ArrayBuffer,
      tokens,
      this.#threads,
    );
  }

  /** Rejects with a RangeError where an input was not finite. */
  async factor(): Promise<void> {
    await this.#addon.factorProducts(this.#products.take(0), this.#columns, DAMPING, this.#threads);
  }

  /**
   * Rounds `rows` rows, each written by `fill` ([columns], zeros before; rotated already), and gives each to `put`: nibbles
   * [columns], scales [columns / 32] IEEE half.
   */
  async round(
    rows: number,
    fill: (row: number, target: Float32Array) => void,
    put: (row: number, nibbles: Uint8Array, scales: Uint16Array) => void,
  ): Promise<void> {
    const n = this.#columns;
    const groups = n / GROUP;
    for (let first = 0; first < rows; first += ROUNDED_ROWS) {
      const count = Math.min(ROUNDED_ROWS, rows - first);
      const weights = this.#weights.take(count * n * 4);
      const values = new Float32Array(weights, 0, count * n).fill(0);
      for (let row = 0; row < count; row++) fill(first + row, values.subarray(row * n, (row + 1) * n));
      const nibbles = this.#nibbles.take(count * n);
      const scales = this.#scales.take(count * groups * 2);
      await this.#addon.roundRows(this.#products.take(0), n, weights, count, nibbles, scales, this.#threads);
      for (let row = 0; row < count; row++)
        put(
          first + row,
          new Uint8Array(nibbles, row * n, n),
          new Uint16Array(scales, row * groups * 2, groups),
        );
    }
  }

  /** Rounds the rows of a panel into its tile. fill: as of `round`. */
  async roundPanel(
    panel: Panel,
    tile: Uint8Array,
    fill: (row: number, target: Float32Array) => void,
  ): Promise<void> {
    await this.round(panel.rows, fill, (row, nibbles, scales) =>
      writeRoundedRow(panel, row, nibbles, scales, tile),
    );
    writePaddingRows(panel, tile);
  }

  close(): void {
    for (const held of [this.#products, this.#inputs, this.#weights, this.#nibbles, this.#scales])
      held.close();
  }
}
