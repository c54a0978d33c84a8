import { PotluckError } from '../errors/errors.ts';
import { describeError, type FileSystem, type OpenFile, readFully } from '../pack/file-system.ts';
import { halfToFloat } from '../pack/number-formats.ts';
import { headerLength, invalidCheckpoint, readHeader, type TensorEntry } from './safetensors-header.ts';

const ELEMENT_BYTES: Readonly<Record<string, number>> = { BF16: 2, F16: 2, F32: 4 };

/** Rows of a matrix as they lie in the file; float32 only as they are taken out. */
export class StoredRows {
  readonly #what: string;
  readonly #dtype: string;
  readonly #data: Uint16Array | Float32Array;
  readonly rows: number;
  readonly columns: number;

  /** `bytes`: rows x columns elements of BF16, F16 or F32. */
  constructor(what: string, dtype: string, bytes: Uint8Array<ArrayBuffer>, rows: number, columns: number) {
    this.#what = what;
    this.#dtype = dtype;
    this.rows = rows;
    this.columns = columns;
    this.#data = dtype === 'F32' ? new Float32Array(bytes.buffer) : new Uint16Array(bytes.buffer);
  }

  /**
   * Copies `count` elements of row `row` from column `first` on to the start of `target`, as float32. Throws
   * CHECKPOINT_INVALID where one is infinite or not a number.
   */
  copy(row: number, first: number, count: number, target: Float32Array): void {
    if (row < 0 || row >= this.rows || first < 0 || first + count > this.columns || count > target.length)
      throw new PotluckError(
        'INTERNAL',
        `${this.#what}: row ${row}, columns ${first} to ${first + count} are outside.`,
      );
    const at = row * this.columns + first;
    const data = this.#data;
    if (this.#dtype === 'BF16') {
      const bits = new Uint32Array(target.buffer, target.byteOffset, count);
      for (let i = 0; i < count; i++) bits[i] = data[at + i]! << 16;
    } else if (this.#dtype === 'F16') {
      for (let i = 0; i < count; i++) target[i] = halfToFloat(data[at + i]!);
    } else {
      for (let i = 0; i < count; i++) target[i] = data[at + i]!;
    }
    for (let i = 0; i < count; i++)
      if (!Number.isFinite(target[i]!))
        throw invalidCheckpoint(this.#what, `row ${row}, column ${first + i} is ${target[i]}`);
  }
}

/** One safetensors file, open. Rows are read as they are asked for. */
export class Safetensors {
  readonly path: string;
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  readonly #file: OpenFile;

  private constructor(path: string, file: OpenFile, tensors: Map<string, TensorEntry>) {
    this.path = path;
    this.tensors = tensors;
    this.#file = file;
  }

  /** Opens a file and reads its header. Rejects with CHECKPOINT_INVALID or DISK_READ. */
  static async open(fileSystem: FileSystem, path: string): Promise<Safetensors> {
    let file: OpenFile;
    try {
      file = await fileSystem.open(path, 'r');
    } catch (error) {
      throw new PotluckError('DISK_READ', `${path}: ${describeError(error)}`, { cause: error });
    }
    try {
      const { size } = await file.stat();
      if (size < 8) throw invalidCheckpoint(path, `has ${size} bytes: no header`);
      const first = new Uint8Array(8);
      await readFully(file, path, first, 0);
      const header = new Uint8Array(headerLength(first, size, path));
      await readFully(file, path, header, 8);
      return new Safetensors(path, file, readHeader(header, size, path));
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /**
   * Reads `count` rows from row `first` of tensor `name`, a matrix or (as one row) a vector. Rejects with
   * CHECKPOINT_INVALID where there is no such tensor of BF16, F16 or F32, with DISK_READ, or with INTERNAL outside it.
   */
  async readRows(name: string, first: number, count: number): Promise<StoredRows> {
    const entry = this.tensors.get(name);
    const what = `${this.path}: tensor ${name}`;
    if (!entry) throw invalidCheckpoint(this.path, `has no tensor ${name}`);
    const elementBytes = ELEMENT_BYTES[entry.dtype];
    if (elementBytes === undefined)
      throw new PotluckError(
        'UNSUPPORTED_MODEL',
        `${what}: has the type ${entry.dtype}. Supported: BF16, F16, F32; use a checkpoint that is not quantized.`,
      );
    const { rows, columns } = matrixShape(entry.shape);
    if (first < 0 || count < 0 || first + count > rows)
      throw new PotluckError('INTERNAL', `${what}: rows ${first} to ${first + count} are outside.`);
    const bytes = new Uint8Array(count * columns * elementBytes);
    await readFully(this.#file, this.path, bytes, entry.offset + first * columns * elementBytes);
    return new StoredRows(what, entry.dtype, bytes, count, columns);
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}

function matrixShape(shape: readonly number[]): { rows: number; columns: number } {
  if (shape.length < 2) return { rows: 1, columns: shape[0] ?? 1 };
  return { rows: shape[0]!, columns: shape.slice(1).reduce((product, n) => product * n, 1) };
}
