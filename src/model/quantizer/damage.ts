import { GROUP, LEVEL_CHANNELS } from '../../pack/tile-shape.ts';

/** Tokens whose activations are kept to measure damage on. */
export const DAMAGE_TOKENS = 64;
/** Rows of a matrix that are looked at, about. */
const DAMAGE_ROWS = 48;

/** Rows of all matrices that share an input that are looked at, about: they take as many multiply-adds as tokens and columns. */
const MOST_DAMAGE_ROWS = 1024;

/** Whether the rows of tile `index` of `tiles` are looked at: where there are many tiles, every second, third, ... */
export const isSampled = (index: number, tiles: number): boolean =>
  index % Math.ceil((tiles * DAMAGE_ROWS) / MOST_DAMAGE_ROWS) === 0;

/** Every how many rows of a matrix one is looked at. */
export const damageStride = (rows: number): number => Math.max(1, Math.floor(rows / DAMAGE_ROWS));

/**
 * What 4-bit activations do to the outputs of matrices that share an input: for each block of 128 channels the squared error
 * of the outputs over the square of the outputs, on some tokens and some rows.
 */
export class Damage {
  /** [tokens, columns]: rotated inputs, and what rounding them to 4 bits adds. */
  readonly #inputs: Float32Array;
  readonly #errors: Float32Array;
  readonly #columns: number;
  readonly #tokens: number;

  /** inputs: [tokens, columns], columns a multiple of 32. */
  constructor(inputs: Float32Array, columns: number) {
    this.#inputs = inputs;
    this.#columns = columns;
    this.#tokens = inputs.length / columns;
    this.#errors = new Float32Array(inputs.length);
    for (let at = 0; at < inputs.length; at += GROUP) roundingError(inputs, at, this.#errors);
  }

  get blocks(): number {
    return Math.ceil(this.#columns / LEVEL_CHANNELS);
  }

  /** Adds one row of a matrix ([columns]): its outputs [tokens] to `sums`, the squared errors of each block to `errors`. */
  addRow(row: Float32Array, sums: Float64Array, errors: Float64Array): void {
    for (let t = 0; t < this.#tokens; t++) {
      const at = t * this.#columns;
      for (let block = 0; block < this.blocks; block++) {
        const end = Math.min(this.#columns, (block + 1) * LEVEL_CHANNELS);
        let sum = 0;
        let error = 0;
        for (let k = block * LEVEL_CHANNELS; k < end; k++) {
          sum += row[k]! * this.#inputs[at + k]!;
          error += row[k]! * this.#errors[at + k]!;
        }
        sums[t]! += sum;
        errors[block]! += error * error;
      }
    }
  }
}

/** The damage of one input to the matrices that it goes into, each by itself; rows come one by one. */
export class InputDamage {
  readonly #input: Damage;
  readonly #matrices = new Map<number, { square: number; readonly errors: Float64Array }>();
  readonly #sums = new Float64Array(DAMAGE_TOKENS);

  constructor(inputs: Float32Array, columns: number) {
    this.#input = new Damage(inputs, columns);
  }

  /** Looks at a row of matrix `matrix`. */
  add(matrix: number, row: Float32Array): void {
    const of = this.#matrices.get(matrix) ?? { square: 0, errors: new Float64Array(this.#input.blocks) };
    this.#matrices.set(matrix, of);
    this.#sums.fill(0);
    this.#input.addRow(row, this.#sums, of.errors);
    for (const sum of this.#sums) of.square += sum * sum;
  }

  /** For each block the sum of its relative errors over all matrices. */
  total(): number[] {
    return Array.from({ length: this.#input.blocks }, (_, block) => {
      let sum = 0;
      for (const { square, errors } of this.#matrices.values())
        if (square > 0) sum += errors[block]! / square;
      return sum;
    });
  }
}

/** The damage of inputs that are parts of one input of a matrix, which is cut by columns: those of the tiles of a half layer. */
export class PartsDamage {
  /** Outputs of all parts together; [row][tokens]. */
  readonly #sums = new Map<number, Float64Array>();
  readonly #errors: Float64Array[] = [];

  /** Adds a part: some rows of its columns. inputs: [tokens, columns]. */
  add(inputs: Float32Array, columns: number, rows: Iterable<readonly [number, Float32Array]>): void {
    const input = new Damage(inputs, columns);
    const errors = new Float64Array(input.blocks);
    for (const [row, weights] of rows) {
      const sums = this.#sums.get(row) ?? new Float64Array(DAMAGE_TOKENS);
      this.#sums.set(row, sums);
      input.addRow(weights, sums, errors);
    }
    this.#errors.push(errors);
  }

  /** The relative errors of all blocks of all parts, in the order in which they came. */
  total(): number[] {
    let square = 0;
    for (const sums of this.#sums.values()) for (const sum of sums) square += sum * sum;
    return this.#errors.flatMap(errors => Array.from(errors, error => (square > 0 ? error / square : 0)));
  }
}

/** x - round(x) of a group in 4 bits, as the kernels round it. */
function roundingError(x: Float32Array, at: number, errors: Float32Array): void {
  let far = 0;
  for (let k = at; k < at + GROUP; k++) if (Math.abs(x[k]!) > Math.abs(far)) far = x[k]!;
  const scale = far / -8;
  for (let k = at; k < at + GROUP; k++) {
    const step = scale === 0 ? 0 : Math.min(7, Math.max(-8, Math.round(x[k]! / scale)));
    errors[k] = x[k]! - step * scale;
  }
}
