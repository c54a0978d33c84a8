import { PotluckError } from '../errors/errors.ts';
import { invalidCheckpoint } from './checkpoint-error.ts';
import type { ElementFormat } from './element-formats.ts';

/** Rows of a matrix, float32 as they are taken out. */
export interface MatrixRows {
  readonly rows: number;
  /**
   * Copies `count` elements of row `row` from column `first` on to the start of `target`, as float32. Throws
   * CHECKPOINT_INVALID where one is no weight, see checkWeights.
   */
  copy(row: number, first: number, count: number, target: Float32Array): void;
}

/** The greatest weight, about what a group of 4 bits reaches. No model has such, and sums of products of two stay finite. */
const MOST_WEIGHT = 2 ** 19;

/**
 * Throws CHECKPOINT_INVALID where one of the first `count` of `values` is not a number, or too large for one that was trained.
 * `what`, `row` and `first` say where they come from.
 */
export function checkWeights(
  values: Float32Array,
  count: number,
  { what, row, first }: { readonly what: string; readonly row: number; readonly first: number },
): void {
  for (let i = 0; i < count; i++)
    if (!(Math.abs(values[i]!) <= MOST_WEIGHT))
      throw invalidCheckpoint(what, `row ${row}, column ${first + i} is ${values[i]}`);
}

export interface StoredRowsOptions {
  /** File and tensor, for messages. */
  readonly what: string;
  readonly format: ElementFormat;
  /** [stored rows, columns] elements in blocks of the format; a row begins with a block. */
  readonly bytes: Uint8Array;
  readonly rows: number;
  readonly columns: number;
  /** Which stored row a row is, where they are in another order; [rows]. */
  readonly order?: Uint32Array;
  /** Added to every element. */
  readonly addend?: number;
}

/** Rows as they lie in the file. */
export class StoredRows implements MatrixRows {
  readonly #options: StoredRowsOptions;
  readonly #view: DataView;
  /** Elements of the blocks that a copy begins or ends inside of. */
  #scratch = new Float32Array(0);

  constructor(options: StoredRowsOptions) {
    this.#options = options;
    this.#view = new DataView(options.bytes.buffer, options.bytes.byteOffset, options.bytes.byteLength);
  }

  get rows(): number {
    return this.#options.rows;
  }

  copy(row: number, first: number, count: number, target: Float32Array): void {
    const { what, format, rows, columns, order, addend } = this.#options;
    if (row < 0 || row >= rows || first < 0 || first + count > columns || count > target.length)
      throw new PotluckError(
        'INTERNAL',
        `${what}: row ${row}, columns ${first} to ${first + count} are outside.`,
      );
    const { blockElements, blockBytes } = format;
    const stored = order?.[row] ?? row;
    const block = Math.floor(first / blockElements);
    const blocks = Math.ceil((first + count) / blockElements) - block;
    const offset = (stored * (columns / blockElements) + block) * blockBytes;
    if (blocks * blockElements === count) {
      format.decode(this.#view, offset, blocks, target);
    } else {
      if (this.#scratch.length < blocks * blockElements)
        this.#scratch = new Float32Array(blocks * blockElements);
      format.decode(this.#view, offset, blocks, this.#scratch);
      const skip = first - block * blockElements;
      target.set(this.#scratch.subarray(skip, skip + count));
    }
    if (addend !== undefined) for (let i = 0; i < count; i++) target[i]! += addend;
    checkWeights(target, count, { what, row, first });
  }
}
