import { dirname } from 'node:path';
import { PotluckError } from '../errors/errors.ts';

/**
 * The few functions of node:fs/promises that packs and checkpoints need; that module can be passed as it is. Tests pass
 * one that fails on purpose.
 */
export interface OpenFile {
  read(
    buffer: Uint8Array,
    offset: number,
    length: number,
    position: number,
  ): Promise<{ readonly bytesRead: number }>;
  write(
    buffer: Uint8Array,
    offset: number,
    length: number,
    position: number,
  ): Promise<{ readonly bytesWritten: number }>;
  truncate(bytes: number): Promise<void>;
  datasync(): Promise<void>;
  sync(): Promise<void>;
  stat(): Promise<{ readonly size: number }>;
  close(): Promise<void>;
}

export interface FileSystem {
  open(path: string, flags: string): Promise<OpenFile>;
  stat(path: string): Promise<{ readonly size: number; isFile(): boolean; isDirectory(): boolean }>;
  mkdir(path: string): Promise<unknown>;
  rename(from: string, to: string): Promise<void>;
  rm(path: string, options: { readonly recursive: boolean; readonly force: boolean }): Promise<void>;
}

/** Most bytes of one read or write call. */
const CALL_BYTES = 64 * 2 ** 20;

/** The system's name of an error ('ENOSPC', ...), or '' where it has none. */
export function errorNumber(error: unknown): string {
  if (typeof error !== 'object' || error === null || !('code' in error)) return '';
  return typeof error.code === 'string' ? error.code : '';
}

/** A system error in a few words. */
export const describeError = (error: unknown): string =>
  error instanceof Error ? error.message : String(error);

/** Opens a file that must be there. Rejects with DISK_READ. */
export async function openToRead(fileSystem: FileSystem, path: string): Promise<OpenFile> {
  try {
    return await fileSystem.open(path, 'r');
  } catch (error) {
    throw new PotluckError('DISK_READ', `${path}: ${describeError(error)}`, { cause: error });
  }
}

/** Fills `target` from `position`. Rejects with DISK_READ, also where the file ends early. */
export async function readFully(
  file: OpenFile,
  path: string,
  target: Uint8Array,
  position: number,
): Promise<void> {
  let done = 0;
  while (done < target.length) {
    const want = Math.min(target.length - done, CALL_BYTES);
    let got: number;
    try {
      got = (await file.read(target, done, want, position + done)).bytesRead;
    } catch (error) {
      throw new PotluckError(
        'DISK_READ',
        `${path}: reading failed at byte ${position + done}: ${describeError(error)}`,
        { cause: error },
      );
    }
    if (got === 0)
      throw new PotluckError('DISK_READ', `${path}: ends at byte ${position + done}, too early.`);
    done += got;
  }
}

/** Writes all of `bytes` at `position`. Rejects with DISK_WRITE. */
export async function writeFully(
  file: OpenFile,
  path: string,
  bytes: Uint8Array,
  position: number,
): Promise<void> {
  let done = 0;
  while (done < bytes.length) {
    const want = Math.min(bytes.length - done, CALL_BYTES);
    const wrote = await writing(
      path,
      async () => (await file.write(bytes, done, want, position + done)).bytesWritten,
    );
    if (wrote === 0) throw new PotluckError('DISK_WRITE', `${path}: the disk took no more bytes.`);
    done += wrote;
  }
}

/** Runs something that changes `path`; a failure becomes DISK_WRITE with the path. */
export async function writing<T>(path: string, change: () => Promise<T>): Promise<T> {
  try {
    return await change();
  } catch (error) {
    if (error instanceof PotluckError) throw error;
    const full = errorNumber(error) === 'ENOSPC' || errorNumber(error) === 'EDQUOT';
    const hint = full ? 'The disk is full: free some space.' : describeError(error);
    throw new PotluckError('DISK_WRITE', `${path}: writing failed. ${hint}`, { cause: error });
  }
}

/**
 * Makes a folder, and those above it, where they are missing. Node's own `recursive` never ends where a file system refuses folders with
 * ENOENT, as /proc does, and says ENOENT where one is read-only. Rejects as the file system does.
 */
export async function makeFolder(
  fileSystem: Pick<FileSystem, 'stat' | 'mkdir'>,
  path: string,
): Promise<void> {
  if (await isFolder(fileSystem, path)) return;
  const above = dirname(path);
  if (above !== path) await makeFolder(fileSystem, above);
  try {
    await fileSystem.mkdir(path);
  } catch (error) {
    // Another may have made it meanwhile.
    if (errorNumber(error) !== 'EEXIST' || !(await isFolder(fileSystem, path))) throw error;
  }
}

async function isFolder(fileSystem: Pick<FileSystem, 'stat'>, path: string): Promise<boolean> {
  try {
    return (await fileSystem.stat(path)).isDirectory();
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(errorNumber(error))) return false;
    throw error;
  }
}

/** The whole of a file of at most `limit` bytes, or undefined where there is none. Rejects with DISK_READ. */
export async function readWholeFile(
  fileSystem: FileSystem,
  path: string,
  limit: number,
): Promise<Uint8Array<ArrayBuffer> | undefined> {
  let file: OpenFile;
  try {
    file = await fileSystem.open(path, 'r');
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(errorNumber(error))) return undefined;
    throw new PotluckError('DISK_READ', `${path}: ${describeError(error)}`, { cause: error });
  }
  try {
    const size = await file.stat().then(
      stat => stat.size,
      (error: unknown) => {
        throw new PotluckError('DISK_READ', `${path}: ${describeError(error)}`, { cause: error });
      },
    );
    if (size > limit) throw new PotluckError('DISK_READ', `${path}: has ${size} bytes, more than ${limit}.`);
    const bytes = new Uint8Array(size);
    await readFully(file, path, bytes, 0);
    return bytes;
  } finally {
    await file.close();
  }
}
