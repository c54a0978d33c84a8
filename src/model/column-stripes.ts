import { PotluckError } from '../errors/errors.ts';
import type { ReadRows } from './cut-tiles.ts';
import type { MatrixRows } from './stored-rows.ts';

/** Most elements of a stripe: 128 MiB. */
export const STRIPE_FLOATS = 2 ** 25;
/** Elements of whole rows that are read at a time, about. */
const READ_FLOATS = 2 ** 21;

/** A matrix that is cut by columns, of which a stripe of columns at a time is in memory. */
export class ColumnStripes {
  readonly #read: ReadRows;
  readonly #rows: number;
  readonly #columns: number;
  readonly #most: number;
  #stripe: Stripe | undefined;

  /** read: of a matrix [rows, columns]; most: elements of a stripe. */
  constructor(read: ReadRows, rows: number, columns: number, most = STRIPE_FLOATS) {
    this.#most = most;
    this.#read = read;
    this.#rows = rows;
    this.#columns = columns;
  }

  /**
   * All rows, of which columns `first` to `first + count` may be copied. Where these are not in memory a stripe from `first` on is
   * read; so ask in rising order. Rejects with what reading rejects with.
   */
  async columns(first: number, count: number): Promise<MatrixRows> {
    const known = this.#stripe;
    if (known && first >= known.first && first + count <= known.first + known.count) return known;
    this.#stripe = undefined; // two would be in memory
    const tiles = Math.max(1, Math.floor(this.#most / (this.#rows * count)));
    this.#stripe = await this.#readStripe(first, Math.min(tiles * count, this.#columns - first));
    return this.#stripe;
  }

  async #readStripe(first: number, count: number): Promise<Stripe> {
    const values = new Float32Array(this.#rows * count);
    const atOnce = Math.max(1, Math.floor(READ_FLOATS / this.#columns));
    for (let row = 0; row < this.#rows; row += atOnce) {
      const some = await this.#read(row, Math.min(atOnce, this.#rows - row));
      for (let i = 0; i < some.rows; i++)
        some.copy(i, first, count, values.subarray((row + i) * count, (row + i + 1) * count));
    }
    return new Stripe(values, first, count);
  }
}

/** Columns `first` to `first + count` of a matrix; [rows, count]. */
class Stripe implements MatrixRows {
  readonly first: number;
  readonly count: number;
  readonly #values: Float32Array;

  constructor(values: Float32Array, first: number, count: number) {
    this.#values = values;
    this.first = first;
    this.count = count;
  }

  get rows(): number {
    return this.#values.length / this.count;
  }

  copy(row: number, first: number, count: number, target: Float32Array): void {
    const from = first - this.first;
    if (row >= this.rows || from < 0 || from + count > this.count)
      throw new PotluckError(
        'INTERNAL',
        `Row ${row}, columns ${first} to ${first + count} are not in the stripe.`,
      );
    const at = row * this.count + from;
    target.set(this.#values.subarray(at, at + count));
  }
}
