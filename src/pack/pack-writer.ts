import { createHash } from 'node:crypto';
import { dirname, join } from 'node:path';
import { PotluckError } from '../errors/errors.ts';
import {
  describeError,
  errorNumber,
  type FileSystem,
  makeFolder,
  type OpenFile,
  readFully,
  writeFully,
  writing,
} from './file-system.ts';
import {
  type BlobEntry,
  EMBEDDING_CHECK_BYTES,
  EMBEDDING_CHECKS_FILE,
  type FileEntry,
  type Manifest,
  type ModelShape,
  PACK_VERSION,
  type TileEntry,
} from './manifest.ts';
import type { PackStep } from './pack-journal.ts';
import { readManifest, tileName, tileOrder, totalTiles } from './read-manifest.ts';
import { ALIGNMENT, constantsFloats, embeddingRowBytes, roundUp, tileBytes } from './tile-shape.ts';

/** CRC-32C of `bytes` behind bytes whose CRC is `before` (0 where there are none). */
export type Crc32c = (bytes: Uint8Array, before: number) => number;

/** What the writer cannot know from the bytes it was given. */
export type ManifestFacts = Pick<Manifest, 'name' | 'stopTokens' | 'beginToken' | 'origin'>;

/** Where a pack lies until it is whole. */
export const unfinishedFolder = (target: string): string => `${target}.unfinished`;
/** Bytes read back at a time. */
const RECOVER_BYTES = 8 * 2 ** 20;

/** The text of a manifest.json: one line for each tile, so that two packs can be compared by eye. */
function manifestText(manifest: Manifest): string {
  const { tiles, ...rest } = manifest;
  const top = JSON.stringify(rest);
  return `${top.slice(0, -1)},"tiles":[\n${tiles.map(tile => JSON.stringify(tile)).join(',\n')}\n]}\n`;
}

/**
 * Writes a pack from front to back: embedding rows, tiles in execution order, files, constants (whose place is kept at
 * the front), then the manifest. Everything lies in a folder beside the target until `place` renames it, so a pack that
 * was interrupted never looks whole. One call at a time. Rejects with DISK_WRITE.
 */
export class PackWriter {
  readonly #fileSystem: FileSystem;
  readonly #target: string;
  readonly #temporary: string;
  readonly #crc32c: Crc32c;
  readonly #shape: ModelShape;
  readonly #data: OpenFile;
  readonly #embeddingFormat: 'bf16' | 'int8';
  readonly #embeddingHash = createHash('sha256');
  readonly #embeddingOffset: number;
  #embeddingBytes = 0;
  #embeddingCrc = 0;
  /** CRC-32C of each row so far: what becomes EMBEDDING_CHECKS_FILE. */
  readonly #embeddingChecks: Uint8Array<ArrayBuffer>;
  readonly #order: Iterator<Pick<TileEntry, 'kind' | 'layer' | 'index'>>;
  readonly #tiles: TileEntry[] = [];
  #tilesEnd: number;
  readonly #files: FileEntry[] = [];
  #constants: BlobEntry | undefined;
  #closed = false;

  private constructor(options: PackWriterOptions, temporary: string, data: OpenFile) {
    this.#fileSystem = options.fileSystem;
    this.#target = options.target;
    this.#temporary = temporary;
    this.#crc32c = options.crc32c;
    this.#shape = options.shape;
    this.#embeddingFormat = options.embeddingFormat;
    this.#data = data;
    this.#embeddingOffset = roundUp(constantsFloats(options.shape) * 4, ALIGNMENT);
    this.#embeddingChecks = new Uint8Array(options.shape.vocabulary * EMBEDDING_CHECK_BYTES);
    this.#order = tileOrder(options.shape);
    this.#tilesEnd = roundUp(this.#embeddingOffset + this.#wholeEmbedding, ALIGNMENT);
  }

  /** Rejects with BAD_OPTION where the target exists. What an interrupted writer left there is removed. */
  static async create(options: PackWriterOptions): Promise<PackWriter> {
    const { fileSystem, target } = options;
    await refuseExisting(fileSystem, target);
    const temporary = unfinishedFolder(target);
    const data = await writing(temporary, async () => {
      await fileSystem.rm(temporary, { recursive: true, force: true });
      await makeFolder(fileSystem, temporary);
      return fileSystem.open(join(temporary, 'tiles.bin'), 'w+');
    });
    return new PackWriter(options, temporary, data);
  }

  /**
   * Opens what an interrupted writer of the same pack left, behind the steps of its journal; undefined where the embedding is
   * not what it was. Rejects with BAD_OPTION where the target exists, with DISK_READ or DISK_WRITE.
   */
  static async resume(
    options: PackWriterOptions,
    steps: readonly PackStep[],
  ): Promise<PackWriter | undefined> {
    const { fileSystem, target } = options;
    await refuseExisting(fileSystem, target);
    const temporary = unfinishedFolder(target);
    const data = await writing(temporary, () => fileSystem.open(join(temporary, 'tiles.bin'), 'r+'));
    const writer = new PackWriter(options, temporary, data);
    try {
      await writer.#recover(steps);
    } catch (error) {
      await writer.leave();
      throw error;
    }
    if (writer.#embeddingCrc === steps[0]?.crc32c) return writer;
    await writer.leave();
    return undefined;
  }

  /** Reads the embedding back for its hashes, and takes the entries of tiles from the journal. */
  async #recover(steps: readonly PackStep[]): Promise<void> {
    const rows = Math.ceil(RECOVER_BYTES / this.#rowBytes);
    const chunk = new Uint8Array(Math.min(rows * this.#rowBytes, this.#wholeEmbedding));
    while (this.#embeddingBytes < this.#wholeEmbedding) {
      const part = chunk.subarray(0, Math.min(chunk.length, this.#wholeEmbedding - this.#embeddingBytes));
      await this.readEmbedding(this.#embeddingBytes, part);
      this.#countRows(part);
    }
    for (const tile of steps.flatMap(step => step.tiles)) {
      this.#order.next();
      this.#tiles.push(tile);
      this.#tilesEnd = Math.max(this.#tilesEnd, tile.offset + tile.bytes);
    }
  }

  /** The CRC-32C of each embedding row that was added; [vocabulary] uint32, little-endian. */
  get embeddingChecks(): Uint8Array {
    return this.#embeddingChecks;
  }

  /** CRC-32C of the embedding rows so far. */
  get embeddingCrc(): number {
    return this.#embeddingCrc;
  }

  /** The tiles so far. */
  get tiles(): readonly TileEntry[] {
    return this.#tiles;
  }

  /** Writes all that was added through to the disk. */
  async sync(): Promise<void> {
    await writing(this.#dataPath, () => this.#data.datasync());
  }

  /** Reads the constants back. */
  async readConstants(target: ArrayBuffer): Promise<void> {
    await readFully(this.#data, this.#dataPath, new Uint8Array(target), 0);
  }

  /** Closes its files and leaves them, for `resume`. */
  async leave(): Promise<void> {
    await this.#close();
  }

  get #dataPath(): string {
    return join(this.#temporary, 'tiles.bin');
  }

  /** Appends whole embedding rows; all of them before the first tile. */
  async addEmbeddingRows(rows: Uint8Array): Promise<void> {
    await writeFully(this.#data, this.#dataPath, rows, this.#embeddingOffset + this.#embeddingBytes);
    this.#countRows(rows);
  }

  /** Takes the next whole rows into what is known of the embedding. */
  #countRows(rows: Uint8Array): void {
    const rowBytes = this.#rowBytes;
    const checks = new DataView(this.#embeddingChecks.buffer);
    const first = this.#embeddingBytes / rowBytes;
    for (let i = 0; i * rowBytes < rows.length; i++) {
      const row = rows.subarray(i * rowBytes, (i + 1) * rowBytes);
      checks.setUint32((first + i) * EMBEDDING_CHECK_BYTES, this.#crc32c(row, 0), true);
    }
    this.#embeddingHash.update(rows);
    this.#embeddingCrc = this.#crc32c(rows, this.#embeddingCrc);
    this.#embeddingBytes += rows.length;
  }

  /** Appends the next tile in execution order. */
  async addTile(bytes: Uint8Array): Promise<void> {
    const next = this.#nextTile(bytes.length);
    const offset = this.#tilesEnd;
    await writeFully(this.#data, this.#dataPath, bytes, offset);
    this.#tilesEnd += bytes.length;
    this.#tiles.push({ ...next, ...this.#blob(bytes, offset) });
  }

  /** The next tile in execution order has the bytes of tile `tile` (place in execution order), which are not written again. */
  repeatTile(tile: number): void {
    const { offset, bytes, sha256, crc32c } = this.#tiles[tile]!;
    this.#tiles.push({ ...this.#nextTile(bytes), offset, bytes, sha256, crc32c });
  }

  #nextTile(bytes: number): Pick<TileEntry, 'kind' | 'layer' | 'index'> {
    const next = this.#order.next();
    if (next.done === true) throw new PotluckError('INTERNAL', 'More tiles than the shape has.');
    if (this.#embeddingBytes !== this.#wholeEmbedding)
      throw new PotluckError('INTERNAL', 'A tile before the whole embedding.');
    if (bytes !== tileBytes(this.#shape, next.value.kind))
      throw new PotluckError('INTERNAL', `${tileName(next.value)} has ${bytes} bytes.`);
    return next.value;
  }

  /** Writes tile `tile` (place in execution order) anew. */
  async replaceTile(tile: number, bytes: Uint8Array): Promise<void> {
    const entry = this.#tiles[tile];
    if (!entry || bytes.length !== entry.bytes)
      throw new PotluckError('INTERNAL', `Tile ${tile} is not written.`);
    await writeFully(this.#data, this.#dataPath, bytes, entry.offset);
    this.#tiles[tile] = { ...entry, ...this.#blob(bytes, entry.offset) };
  }

  /** Writes the constants; see constantsFloats. */
  async setConstants(constants: ArrayBuffer): Promise<void> {
    const bytes = new Uint8Array(constants);
    await writeFully(this.#data, this.#dataPath, bytes, 0);
    this.#constants = this.#blob(bytes, 0);
  }

  /** Adds a further file to the pack. */
  async addFile(name: string, bytes: Uint8Array): Promise<void> {
    await this.#writeFile(name, bytes);
    this.#files.push({ name, bytes: bytes.length, sha256: createHash('sha256').update(bytes).digest('hex') });
  }

  /** Reads back bytes of the embedding, from byte `offset` of it. */
  async readEmbedding(offset: number, target: Uint8Array): Promise<void> {
    await readFully(this.#data, this.#dataPath, target, this.#embeddingOffset + offset);
  }

  /** Reads back tile `tile` (place in execution order) into `target`. */
  async readTile(tile: number, target: Uint8Array): Promise<void> {
    const entry = this.#tiles[tile];
    if (!entry || target.length !== entry.bytes)
      throw new PotluckError('INTERNAL', `Tile ${tile} is not written.`);
    await readFully(this.#data, this.#dataPath, target, entry.offset);
  }

  /** Completes the pack and puts it in its place. */
  async finish(facts: ManifestFacts): Promise<Manifest> {
    const manifest = await this.complete(facts);
    await this.place();
    return manifest;
  }

  /** Writes the manifest, syncs everything and closes its files. */
  async complete(facts: ManifestFacts): Promise<Manifest> {
    const constants = this.#constants;
    if (!constants || this.#tiles.length !== totalTiles(this.#shape))
      throw new PotluckError('INTERNAL', 'The pack is not whole.');
    await this.addFile(EMBEDDING_CHECKS_FILE, this.#embeddingChecks);
    const manifest: Manifest = {
      format: 'potluck-pack',
      version: PACK_VERSION,
      ...facts,
      shape: this.#shape,
      constants,
      embedding: {
        offset: this.#embeddingOffset,
        bytes: this.#embeddingBytes,
        sha256: this.#embeddingHash.digest('hex'),
        crc32c: this.#embeddingCrc,
        format: this.#embeddingFormat,
        rowBytes: this.#rowBytes,
      },
      files: this.#files,
      tiles: this.#tiles,
    };
    const text = new TextEncoder().encode(manifestText(manifest));
    readManifest(text, join(this.#temporary, 'manifest.json'));
    await writing(this.#dataPath, () => this.#data.sync());
    await this.#close();
    await this.#writeFile('manifest.json', text);
    return manifest;
  }

  /** Puts a complete pack in its place. Rejects with BAD_OPTION where the target exists. */
  async place(): Promise<void> {
    await refuseExisting(this.#fileSystem, this.#target);
    await writing(this.#target, async () => {
      await makeFolder(this.#fileSystem, dirname(this.#target));
      await this.#fileSystem.rename(this.#temporary, this.#target);
    });
  }

  /** Removes what was written. After `place` it does nothing. */
  async abort(): Promise<void> {
    await this.#close();
    await writing(this.#temporary, () =>
      this.#fileSystem.rm(this.#temporary, { recursive: true, force: true }),
    );
  }

  get #wholeEmbedding(): number {
    return this.#shape.vocabulary * this.#rowBytes;
  }

  get #rowBytes(): number {
    return embeddingRowBytes(this.#shape, this.#embeddingFormat);
  }

  #blob(bytes: Uint8Array, offset: number): BlobEntry {
    return {
      offset,
      bytes: bytes.length,
      sha256: createHash('sha256').update(bytes).digest('hex'),
      crc32c: this.#crc32c(bytes, 0),
    };
  }

  async #writeFile(name: string, bytes: Uint8Array): Promise<void> {
    const path = join(this.#temporary, name);
    await writing(path, async () => {
      const file = await this.#fileSystem.open(path, 'w'); // a run before may have begun it
      try {
        await writeFully(file, path, bytes, 0);
        await file.sync();
      } finally {
        await file.close();
      }
    });
  }

  async #close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#data.close();
  }
}

export interface PackWriterOptions {
  readonly fileSystem: FileSystem;
  readonly target: string;
  readonly crc32c: Crc32c;
  readonly shape: ModelShape;
  readonly embeddingFormat: 'bf16' | 'int8';
}

async function refuseExisting(fileSystem: FileSystem, target: string): Promise<void> {
  try {
    await fileSystem.stat(target);
  } catch (error) {
    if (errorNumber(error) === 'ENOENT') return;
    throw new PotluckError('DISK_READ', `${target}: ${describeError(error)}`, { cause: error });
  }
  throw new PotluckError('BAD_OPTION', `${target}: is there already. Remove it, or choose another folder.`);
}
