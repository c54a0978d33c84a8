import { PotluckError } from '../../errors/errors.ts';
import {
  errorNumber,
  type FileSystem,
  type OpenFile,
  readFully,
  writeFully,
  writing,
} from '../../pack/file-system.ts';

/** The residual stream of the calibration tokens between two layers: [tokens, width] float32, on disk. */
export class ResidualFile {
  readonly #file: OpenFile;
  readonly #path: string;
  readonly #width: number;

  private constructor(file: OpenFile, path: string, width: number) {
    this.#file = file;
    this.#path = path;
    this.#width = width;
  }

  /** Opens the file at `path`, or makes it. Rejects with DISK_WRITE. */
  static async open(fileSystem: FileSystem, path: string, width: number): Promise<ResidualFile> {
    const file = await writing(path, async () => {
      try {
        return await fileSystem.open(path, 'r+');
      } catch (error) {
        if (errorNumber(error) !== 'ENOENT') throw error;
        return fileSystem.open(path, 'w+');
      }
    });
    return new ResidualFile(file, path, width);
  }

  /** Reads the rows from `first` on that fill `target` ([rows, width]). Rejects with DISK_READ. */
  async read(first: number, target: Float32Array): Promise<void> {
    await readFully(this.#file, this.#path, this.#bytes(target), first * this.#width * 4);
  }

  /** Writes rows from `first` on. Rejects with DISK_WRITE. */
  async write(first: number, rows: Float32Array): Promise<void> {
    await writeFully(this.#file, this.#path, this.#bytes(rows), first * this.#width * 4);
  }

  async sync(): Promise<void> {
    await writing(this.#path, () => this.#file.datasync());
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  #bytes(rows: Float32Array): Uint8Array {
    if (rows.length % this.#width !== 0)
      throw new PotluckError('INTERNAL', `${rows.length} numbers are no rows.`);
    return new Uint8Array(rows.buffer, rows.byteOffset, rows.byteLength);
  }
}
