/** The disk part of the native addon. Every call throws RangeError where an argument is not what it must be. */

declare const readerMark: unique symbol;
declare const fileMark: unique symbol;
/** Threads that read. */
export type DiskReader = { readonly [readerMark]: true };
/** A file open for reading. */
export type DiskFile = { readonly [fileMark]: true };

export interface OpenedFile {
  readonly file: DiskFile;
  /** False where the file system, or the caller, wanted reads through the page cache. */
  readonly direct: boolean;
  /** 'O_DIRECT', 'F_NOCACHE', 'FILE_FLAG_NO_BUFFERING' or 'buffered'. */
  readonly how: string;
}

export interface TileReadError {
  /** 'errno': the system said no. 'short': the file ends inside the tile. 'crc': the bytes are others. */
  readonly kind: 'errno' | 'short' | 'crc';
  /** Place of the tile in the run. */
  readonly part: number;
  readonly message: string;
  /** The system's error number. */
  readonly errno?: number;
  /** short: bytes of the tile. crc: its CRC-32C. */
  readonly expected?: number;
  /** short: bytes of it that were read. crc: the CRC-32C of what was read. */
  readonly actual?: number;
}

/**
 * `microseconds`: from the moment a thread took the read to the end of its check; `cpuMicroseconds`: processor time of
 * that thread meanwhile.
 */
export type RunReadDone = (
  error: TileReadError | null,
  microseconds: number,
  cpuMicroseconds: number,
) => void;

export interface DiskAddon {
  /** Starts 1 to 64 threads. They keep the process alive only while reads are under way. */
  createReader(threads: number): DiskReader;
  /** Ends the threads. Throws while reads are under way. */
  closeReader(reader: DiskReader): void;
  /** Throws an Error with `errno` where the system refuses, or `path` is no regular file. */
  openFile(path: string, wantDirect: boolean): OpenedFile;
  /** Reads under way go on; the file is closed after the last. */
  closeFile(file: DiskFile): void;
  /**
   * Reads tiles that lie one behind the other from `fileOffset` on into `memory` (of the addon's `allocate`) at
   * `memoryOffset`, and checks each. `tiles`: for each its bytes and its CRC-32C (-1: not checked). Offsets and bytes
   * are multiples of 4096. `done` is called once, later; it ends at the first tile that is wrong.
   */
  readRun(
    reader: DiskReader,
    file: DiskFile,
    fileOffset: number,
    memory: ArrayBuffer,
    memoryOffset: number,
    tiles: Float64Array,
    done: RunReadDone,
  ): void;
  /**
   * Fills `target` from `offset` of a buffered file where all of it lies in the system's page cache, and never waits for
   * the disk; false where it does not, or where the system cannot tell (not Linux).
   */
  readCached(file: DiskFile, offset: number, target: Uint8Array): boolean;
  /** CRC-32C of `bytes` after bytes whose CRC is `seed` (0 where nothing goes before), 0 to 2^32 - 1. */
  crc32c(bytes: Uint8Array, seed?: number, variant?: string): number;
  /** Ways to compute it that this processor has, the fastest last; the first, 'table', is the reference. */
  crc32cVariants(): string[];
}
