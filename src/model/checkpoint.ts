import { join } from 'node:path';
import { PotluckError } from '../errors/errors.ts';
import { describeError, errorNumber, type FileSystem } from '../pack/file-system.ts';
import { GgufCheckpoint } from './gguf/gguf-checkpoint.ts';
import { withInt4Weights } from './int4-checkpoint.ts';
import { SafetensorsCheckpoint } from './safetensors-checkpoint.ts';
import type { MatrixRows } from './stored-rows.ts';

/**
 * A model before it is packed, whatever files it lies in: tensors by the names that Hugging Face gives them, and the files
 * beside them in its forms. Headers are in memory, weights are read as they are asked for.
 */
export interface Checkpoint {
  /** Folder or file, for messages. */
  readonly path: string;
  /** Where `config` came from, for messages. */
  readonly configPath: string;
  /** What config.json says, not yet checked. */
  readonly config: unknown;
  has(tensor: string): boolean;
  /** All tensors with their shapes. */
  tensors(): Iterable<readonly [name: string, shape: readonly number[]]>;
  /** Throws CHECKPOINT_INVALID where `tensor` is not there or has another shape. */
  expect(tensor: string, shape: readonly number[]): void;
  /**
   * Reads rows `first` to `first + count` of a matrix or (as one row) a vector. Rejects with CHECKPOINT_INVALID where there
   * is no such tensor, UNSUPPORTED_MODEL where its numbers are of an unknown kind, DISK_READ, or INTERNAL outside it.
   */
  readRows(tensor: string, first: number, count: number): Promise<MatrixRows>;
  /** A further file: tokenizer.json, tokenizer_config.json ... Undefined where there is none. */
  readFile(name: string, limit: number): Promise<Uint8Array | undefined>;
  /** A further JSON file, not checked. Undefined where there is none. */
  readJson(name: string, limit: number): Promise<unknown>;
  close(): Promise<void>;
}

/** Files that unpickling would have to run as a program. */
const PICKLES = /\.(?:bin|pt|pth|ckpt|pkl|pickle)$/i;
const PICKLE_NAMES = [
  'pytorch_model.bin',
  'pytorch_model.bin.index.json',
  'consolidated.00.pth',
  'model.ckpt',
  'model.pt',
];

/** Opens the checkpoint at `path`. Rejects with PACK_NOT_FOUND, CHECKPOINT_INVALID, UNSUPPORTED_MODEL or DISK_READ. */
export async function openCheckpoint(fileSystem: FileSystem, path: string): Promise<Checkpoint> {
  if (PICKLES.test(path) && (await isFile(fileSystem, path))) throw refusedPickle(path);
  if (/\.gguf$/i.test(path) && (await isFile(fileSystem, path))) return GgufCheckpoint.open(fileSystem, path);
  if (path.endsWith('.safetensors') && (await isFile(fileSystem, path)))
    throw new PotluckError(
      'PACK_NOT_FOUND',
      `${path}: a safetensors file alone does not say what model it is. Give the folder that has its config.json, too.`,
    );
  if (!(await hasSafetensors(fileSystem, path)))
    for (const name of PICKLE_NAMES)
      if (await isFile(fileSystem, join(path, name))) throw refusedPickle(join(path, name));
  const checkpoint = await SafetensorsCheckpoint.open(fileSystem, path);
  try {
    return withInt4Weights(checkpoint);
  } catch (error) {
    await checkpoint.close();
    throw error;
  }
}

const refusedPickle = (path: string): PotluckError =>
  new PotluckError(
    'UNSUPPORTED_MODEL',
    `${path}: is a pickle, and reading one runs whatever program it holds. Use the safetensors or GGUF files of the same model.`,
  );

async function hasSafetensors(fileSystem: FileSystem, folder: string): Promise<boolean> {
  for (const name of ['model.safetensors', 'model.safetensors.index.json'])
    if (await isFile(fileSystem, join(folder, name))) return true;
  return false;
}

async function isFile(fileSystem: FileSystem, path: string): Promise<boolean> {
  try {
    return (await fileSystem.stat(path)).isFile();
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(errorNumber(error))) return false;
    throw new PotluckError('DISK_READ', `${path}: ${describeError(error)}`, { cause: error });
  }
}
