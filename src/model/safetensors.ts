import { PotluckError } from '../errors/errors.ts';
import { type FileSystem, type OpenFile, openToRead, readFully } from '../pack/file-system.ts';
import { invalidCheckpoint } from './checkpoint-error.ts';
import { BF16, type ElementFormat, F16, F32 } from './element-formats.ts';
import { headerLength, readHeader, type TensorEntry } from './safetensors-header.ts';
import { StoredRows } from './stored-rows.ts';

const FORMATS: Readonly<Record<string, ElementFormat>> = { BF16, F16, F32 };

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
    const file = await openToRead(fileSystem, path);
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
    const format = FORMATS[entry.dtype];
    if (format === undefined)
      throw new PotluckError(
        'UNSUPPORTED_MODEL',
        `${what}: has the type ${entry.dtype}. Supported: BF16, F16, F32; use a checkpoint that is not quantized.`,
      );
    const { rows, columns } = matrixShape(entry.shape);
    if (first < 0 || count < 0 || first + count > rows)
      throw new PotluckError('INTERNAL', `${what}: rows ${first} to ${first + count} are outside.`);
    const bytes = new Uint8Array(count * columns * format.blockBytes);
    await readFully(this.#file, this.path, bytes, entry.offset + first * columns * format.blockBytes);
    return new StoredRows({ what, format, bytes, rows: count, columns });
  }

  /** All bytes of tensor `name`, of any type. Rejects with CHECKPOINT_INVALID where they are over `limit`, or DISK_READ. */
  async readTensor(name: string, limit: number): Promise<Uint8Array<ArrayBuffer>> {
    const entry = this.tensors.get(name);
    if (!entry) throw invalidCheckpoint(this.path, `has no tensor ${name}`);
    if (entry.bytes > limit)
      throw invalidCheckpoint(this.path, `tensor ${name} has ${entry.bytes} bytes, more than ${limit}`);
    const bytes = new Uint8Array(entry.bytes);
    await readFully(this.#file, this.path, bytes, entry.offset);
    return bytes;
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}

function matrixShape(shape: readonly number[]): { rows: number; columns: number } {
  if (shape.length < 2) return { rows: 1, columns: shape[0] ?? 1 };
  return { rows: shape[0]!, columns: shape.slice(1).reduce((product, n) => product * n, 1) };
}
