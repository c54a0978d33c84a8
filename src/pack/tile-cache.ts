import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { PotluckError } from '../errors/errors.ts';
import {
  describeError,
  errorNumber,
  type FileSystem,
  type OpenFile,
  readWholeFile,
  writeFully,
  writing,
} from './file-system.ts';
import { SlotSpace } from './slot-space.ts';
import { JOURNAL_BYTES, putLine, removeLine, replayJournal, type Slot } from './tile-cache-journal.ts';
import { ALIGNMENT } from './tile-shape.ts';

/** Where a cached tile lies. */
export interface CachedTile {
  readonly path: string;
  /** Bytes; a multiple of 4096. */
  readonly offset: number;
  readonly bytes: number;
  readonly crc32c: number;
}

export interface TileCacheOptions {
  readonly fileSystem: FileSystem;
  readonly folder: string;
  readonly crc32c: (bytes: Uint8Array, before: number) => number;
}

/** A removed tile leaves a line behind; from this many on the journal is written anew when it is opened. */
const STALE_LINES = 1000;

/**
 * The tiles that this device received from others, on disk, addressed by their SHA-256: tiles.bin with slots aligned to
 * 4096 bytes, and index.txt, a journal. A tile's bytes are on disk before its line is, and the line of a removed tile
 * before its slot is used again, so a crash at any moment loses at most the last change.
 */
export class TileCache {
  readonly #options: TileCacheOptions;
  #data: OpenFile;
  readonly #journal: OpenFile;
  readonly #slots: Map<string, Slot>;
  #space: SlotSpace;
  #journalEnd: number;
  #last: Promise<unknown> = Promise.resolve();
  #closed = false;

  private constructor(
    options: TileCacheOptions,
    data: OpenFile,
    journal: OpenFile,
    slots: Map<string, Slot>,
    end: number,
  ) {
    this.#options = options;
    this.#data = data;
    this.#journal = journal;
    this.#slots = slots;
    this.#space = new SlotSpace(slots.values());
    this.#journalEnd = end;
  }

  /** Opens the cache in `folder`, made where it is missing. Rejects with DISK_READ or DISK_WRITE. */
  static async open(options: TileCacheOptions): Promise<TileCache> {
    const { fileSystem, folder } = options;
    const journalPath = join(folder, 'index.txt');
    await writing(folder, () => fileSystem.mkdir(folder, { recursive: true }));
    const data = await openOrMake(fileSystem, join(folder, 'tiles.bin'));
    try {
      const { size } = await data.stat();
      const bytes = await readWholeFile(fileSystem, journalPath, JOURNAL_BYTES);
      const text = new TextDecoder('latin1').decode(bytes ?? new Uint8Array(0));
      const { slots, torn } = replayJournal(
        text,
        slot =>
          slot.offset % ALIGNMENT === 0 && slot.bytes % ALIGNMENT === 0 && slot.offset + slot.bytes <= size,
      );
      const lines = [...slots].map(([hash, slot]) => putLine(hash, slot)).join('');
      const stale = torn || text.length > lines.length + STALE_LINES * 100;
      if (stale) await replaceJournal(fileSystem, journalPath, lines);
      const journal = await openOrMake(fileSystem, journalPath);
      return new TileCache(options, data, journal, slots, stale ? lines.length : text.length);
    } catch (error) {
      await data.close();
      throw error;
    }
  }

  get #dataPath(): string {
    return join(this.#options.folder, 'tiles.bin');
  }

  get #journalPath(): string {
    return join(this.#options.folder, 'index.txt');
  }

  /** Bytes of the tiles that are here. */
  get bytes(): number {
    return this.#space.used;
  }

  has(hash: string): boolean {
    return this.#slots.has(hash);
  }

  /** Where tile `hash` lies, or undefined. */
  locate(hash: string): CachedTile | undefined {
    const slot = this.#slots.get(hash);
    return slot && { path: this.#dataPath, ...slot };
  }

  /** Hashes of the tiles that are here, oldest first. */
  hashes(): string[] {
    return [...this.#slots.keys()];
  }

  /** Bytes of each tile that is here, by hash, oldest first. */
  sizes(): Map<string, number> {
    return new Map([...this.#slots].map(([hash, { bytes }]) => [hash, bytes]));
  }

  /**
   * Keeps a tile (a multiple of 4096 bytes); resolves when it would survive a loss of power. Rejects with TILE_CORRUPT
   * where the bytes do not have that hash, and with DISK_WRITE.
   */
  put(hash: string, bytes: Uint8Array): Promise<void> {
    if (createHash('sha256').update(bytes).digest('hex') !== hash)
      return Promise.reject(
        new PotluckError(
          'TILE_CORRUPT',
          `A received tile does not have its hash ${hash.slice(0, 16)}. It will be fetched again.`,
        ),
      );
    if (bytes.length === 0 || bytes.length % ALIGNMENT !== 0)
      return Promise.reject(
        new PotluckError(
          'TILE_CORRUPT',
          `Tile ${hash.slice(0, 16)} has ${bytes.length} bytes, not a multiple of ${ALIGNMENT}.`,
        ),
      );
    return this.#inTurn(() => this.#put(hash, bytes));
  }

  /**
   * Forgets tiles; their room is used again, unless the disk cannot hold them there (`broken`): then not before the next start. Hashes
   * that are not here are passed over. Rejects with DISK_WRITE.
   */
  remove(hashes: Iterable<string>, broken = false): Promise<void> {
    const wanted = new Set(hashes);
    return this.#inTurn(async () => {
      const gone = [...wanted].filter(hash => this.#slots.has(hash));
      if (gone.length === 0) return;
      await this.#append(gone.map(removeLine).join(''));
      for (const hash of gone) {
        if (!broken) this.#space.free(this.#slots.get(hash)!);
        this.#slots.delete(hash);
      }
    });
  }

  /** Waits for changes under way and closes the files. */
  async close(): Promise<void> {
    if (this.#closed) return;
    await this.#inTurn(async () => {
      this.#closed = true;
      await this.#data.close();
      await this.#journal.close();
    });
  }

  /** Forgets every tile and begins another file where somebody removed the one that is open: what is written there is lost. */
  async #renewIfLost(): Promise<void> {
    const { fileSystem } = this.#options;
    if (await isThere(fileSystem, this.#dataPath)) return;
    await this.#append([...this.#slots.keys()].map(removeLine).join(''));
    this.#slots.clear();
    this.#space = new SlotSpace([]);
    const lost = this.#data;
    this.#data = await openOrMake(fileSystem, this.#dataPath);
    await lost.close();
  }

  async #put(hash: string, bytes: Uint8Array): Promise<void> {
    await this.#renewIfLost();
    if (this.#slots.has(hash)) return;
    const offset = this.#space.take(bytes.length);
    const slot: Slot = { offset, bytes: bytes.length, crc32c: this.#options.crc32c(bytes, 0) };
    try {
      await writeFully(this.#data, this.#dataPath, bytes, offset);
      await writing(this.#dataPath, () => this.#data.datasync());
      await this.#append(putLine(hash, slot));
    } catch (error) {
      this.#space.free(slot);
      throw error;
    }
    this.#slots.set(hash, slot);
  }

  /** Appends lines and syncs them. Where that fails, the next lines are written over what is left of these. */
  async #append(lines: string): Promise<void> {
    const bytes = new TextEncoder().encode(lines);
    await writeFully(this.#journal, this.#journalPath, bytes, this.#journalEnd);
    await writing(this.#journalPath, () => this.#journal.datasync());
    this.#journalEnd += bytes.length;
  }

  #inTurn<T>(change: () => Promise<T>): Promise<T> {
    const result = this.#last.then(() => {
      if (this.#closed)
        throw new PotluckError('STOPPED', `${this.#options.folder}: the tile cache is closed.`);
      return change();
    });
    this.#last = result.catch(() => undefined);
    return result;
  }
}

async function isThere(fileSystem: FileSystem, path: string): Promise<boolean> {
  try {
    await fileSystem.stat(path);
    return true;
  } catch (error) {
    if (errorNumber(error) === 'ENOENT') return false;
    throw new PotluckError('DISK_READ', `${path}: ${describeError(error)}`, { cause: error });
  }
}

async function openOrMake(fileSystem: FileSystem, path: string): Promise<OpenFile> {
  return writing(path, async () => {
    try {
      return await fileSystem.open(path, 'r+');
    } catch (error) {
      if (errorNumber(error) !== 'ENOENT') throw error;
      return fileSystem.open(path, 'wx+');
    }
  });
}

/** Puts a journal with exactly `lines` in the place of the old one. */
async function replaceJournal(fileSystem: FileSystem, path: string, lines: string): Promise<void> {
  const fresh = `${path}.new`;
  await writing(fresh, async () => {
    const file = await fileSystem.open(fresh, 'w');
    try {
      await writeFully(file, fresh, new TextEncoder().encode(lines), 0);
      await file.sync();
    } finally {
      await file.close();
    }
    await fileSystem.rename(fresh, path);
  });
}
