import { type OpenFile, readFully } from '../../pack/file-system.ts';
import { invalidCheckpoint } from '../checkpoint-error.ts';

const CHUNK = 2 ** 18;

/** Reads a file from its start on, in chunks, and never past `limit` bytes. Numbers are little-endian. */
export class FileCursor {
  readonly path: string;
  readonly #file: OpenFile;
  /** Bytes of the file, and the end that nothing may reach over. */
  readonly #size: number;
  #chunk = new Uint8Array(0);
  #view = new DataView(this.#chunk.buffer);
  /** Where the chunk begins in the file, and the next byte inside the chunk. */
  #start = 0;
  #at = 0;

  constructor(file: OpenFile, path: string, size: number, limit: number) {
    this.#file = file;
    this.path = path;
    this.#size = Math.min(size, limit);
  }

  /** Next byte, from the start of the file. */
  get position(): number {
    return this.#start + this.#at;
  }

  /** Bytes that may still be read. */
  get left(): number {
    return this.#size - this.position;
  }

  /** Makes sure that `bytes` bytes lie in the chunk. Rejects with CHECKPOINT_INVALID where there are no more, or DISK_READ. */
  async need(bytes: number): Promise<void> {
    if (this.#at + bytes <= this.#chunk.length) return;
    if (bytes > this.left)
      throw invalidCheckpoint(
        this.path,
        `the header wants ${bytes} bytes at byte ${this.position}, over its end`,
      );
    const start = this.position;
    const chunk = new Uint8Array(Math.min(Math.max(bytes, CHUNK), this.#size - start));
    await readFully(this.#file, this.path, chunk, start);
    this.#chunk = chunk;
    this.#view = new DataView(chunk.buffer);
    this.#start = start;
    this.#at = 0;
  }

  /** The next `bytes` bytes, which `need` has brought; valid until the next `need`. */
  take(bytes: number): Uint8Array {
    const taken = this.#chunk.subarray(this.#at, this.#at + bytes);
    this.#at += bytes;
    return taken;
  }

  /** As `take`, for numbers: a view and the offset in it. */
  number<T>(bytes: number, read: (view: DataView, offset: number) => T): T {
    const value = read(this.#view, this.#at);
    this.#at += bytes;
    return value;
  }
}
