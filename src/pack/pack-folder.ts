import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { PotluckError } from '../errors/errors.ts';
import {
  describeError,
  errorNumber,
  type FileSystem,
  openToRead,
  readFully,
  readWholeFile,
} from './file-system.ts';
import { EMBEDDING_CHECKS_FILE, type FileEntry, type Manifest } from './manifest.ts';
import { invalidPack, MANIFEST_BYTES, manifestId, packBytes, readManifest } from './read-manifest.ts';

/** Bytes read at a time where something large is hashed. */
const CHUNK_BYTES = 2 ** 20;

/** A pack on disk whose manifest, sizes, constants and tokenizer files have been checked. Holds no open file. */
export interface PackFolder {
  readonly folder: string;
  readonly tilesPath: string;
  readonly manifest: Manifest;
  /** manifest.json as it lies on disk: what other devices are sent. */
  readonly manifestBytes: Uint8Array;
  /** First 16 hex digits of the SHA-256 of manifestBytes. */
  readonly id: string;
  /** Constants blob; float32, see constantsFloats. The caller may change its copy. */
  readonly constants: ArrayBuffer;
  /** The bytes of a file named in the manifest, or undefined. Rejects with PACK_INVALID where they changed. */
  readFile(name: string): Promise<Uint8Array | undefined>;
  /** The CRC-32C of each embedding row; [vocabulary] uint32, little-endian. Rejects with PACK_INVALID where they changed. */
  embeddingChecks(): Promise<Uint8Array>;
}

/**
 * Opens the pack in `folder`. Rejects with PACK_NOT_FOUND, PACK_INVALID, PACK_VERSION or DISK_READ.
 * Tiles are not read: whoever reads one checks its CRC.
 */
export async function openPackFolder(fileSystem: FileSystem, folder: string): Promise<PackFolder> {
  const manifestPath = join(folder, 'manifest.json');
  const tilesPath = join(folder, 'tiles.bin');
  const manifestBytes = await readWholeFile(fileSystem, manifestPath, MANIFEST_BYTES);
  if (manifestBytes === undefined)
    throw new PotluckError(
      'PACK_NOT_FOUND',
      `${folder}: there is no pack here (no manifest.json). Check the path, or make a pack with: potluck pack`,
    );
  const manifest = readManifest(manifestBytes, manifestPath);
  const size = await fileSize(fileSystem, tilesPath);
  if (size < packBytes(manifest))
    throw invalidPack(
      tilesPath,
      `is truncated: ${size} bytes of ${packBytes(manifest)}; ${firstMissing(manifest, size)}`,
    );
  const constants = new Uint8Array(manifest.constants.bytes);
  const hash = await hashRange(fileSystem, tilesPath, manifest.constants.offset, constants.length, constants);
  if (hash !== manifest.constants.sha256)
    throw invalidPack(tilesPath, 'the constants do not have their hash');
  for (const entry of manifest.files) await checkFile(fileSystem, folder, entry);
  return {
    folder,
    tilesPath,
    manifest,
    manifestBytes,
    id: manifestId(manifestBytes),
    constants: constants.buffer,
    readFile: async name => {
      const entry = manifest.files.find(file => file.name === name);
      return entry && readPackFile(fileSystem, folder, entry);
    },
    embeddingChecks: () =>
      readPackFile(fileSystem, folder, manifest.files.find(({ name }) => name === EMBEDDING_CHECKS_FILE)!),
  };
}

function firstMissing(manifest: Manifest, size: number): string {
  const { constants, embedding, tiles } = manifest;
  if (constants.offset + constants.bytes > size) return 'the constants are missing';
  if (embedding.offset + embedding.bytes > size) return 'the embedding is missing';
  return `tile ${tiles.findIndex(tile => tile.offset + tile.bytes > size)} is missing`;
}

async function fileSize(fileSystem: FileSystem, path: string): Promise<number> {
  try {
    return (await fileSystem.stat(path)).size;
  } catch (error) {
    if (errorNumber(error) === 'ENOENT') throw invalidPack(path, 'is missing');
    throw new PotluckError('DISK_READ', `${path}: ${describeError(error)}`, { cause: error });
  }
}

/** SHA-256 of a part of a file, hex; the bytes also go to `keep` where it is given. */
async function hashRange(
  fileSystem: FileSystem,
  path: string,
  offset: number,
  bytes: number,
  keep?: Uint8Array,
): Promise<string> {
  const hash = createHash('sha256');
  const chunk = keep ?? new Uint8Array(Math.min(CHUNK_BYTES, bytes));
  const file = await openToRead(fileSystem, path);
  try {
    for (let done = 0; done < bytes; ) {
      const part = chunk.subarray(0, Math.min(chunk.length, bytes - done));
      await readFully(file, path, part, offset + done);
      hash.update(part);
      done += part.length;
    }
  } finally {
    await file.close();
  }
  return hash.digest('hex');
}

async function checkFile(fileSystem: FileSystem, folder: string, entry: FileEntry): Promise<void> {
  const path = join(folder, entry.name);
  const size = await fileSize(fileSystem, path);
  if (size !== entry.bytes) throw invalidPack(path, `has ${size} bytes, not ${entry.bytes}`);
  if ((await hashRange(fileSystem, path, 0, size)) !== entry.sha256)
    throw invalidPack(path, 'does not have its hash');
}

async function readPackFile(fileSystem: FileSystem, folder: string, entry: FileEntry): Promise<Uint8Array> {
  const path = join(folder, entry.name);
  const bytes = await readWholeFile(fileSystem, path, entry.bytes);
  if (bytes === undefined) throw invalidPack(path, 'is missing');
  if (createHash('sha256').update(bytes).digest('hex') !== entry.sha256)
    throw invalidPack(path, 'does not have its hash');
  return bytes;
}
