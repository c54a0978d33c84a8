import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { PotluckError } from '../errors/errors.ts';
import {
  describeError,
  errorNumber,
  type FileSystem,
  makeFolder,
  type OpenFile,
  readWholeFile,
  writeFully,
  writing,
} from './file-system.ts';
import { SlotSpace } from './slot-space.ts';
import {
  isLongJournal,
  JOURNAL_BYTES,
  journalOf,
  putLine,
  removeLine,
  replayJournal,
  type Slot,
} from './tile-cache-journal.ts';
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
  /** Monotonic clock in milliseconds. */
  readonly now: () => number;
}

/** Bytes and age of written tiles from which on they are confirmed without being asked: what a crash may lose. */
const GROUP_BYTES = 16 * 2 ** 20;
const GROUP_MILLISECONDS = 1000;

/**
 * The tiles that this device received from others, on disk, addressed by their SHA-256: tiles.bin with slots aligned to
 * 4096 bytes, and index.txt, a journal. Tiles are written one by one and confirmed in groups, as waiting for the disk
 * costs the same for one and for many: the bytes of all are synced before their lines are written, and the line of a
 * removed tile before its slot is used again. So whatever the journal says is there, and a crash at any moment loses
 * at most the group that was not confirmed.
 */
export class TileCache {
  readonly #options: TileCacheOptions;
  #data: OpenFile;
  #journal: OpenFile;
  readonly #slots: Map<string, Slot>;
  #space: SlotSpace;
  /** Tiles that are written and not confirmed: not there yet. */
  readonly #written = new Map<string, Slot>();
  #writtenBytes = 0;
  /** When the first of them was written. */
  #writtenSince = 0;
  #journalEnd: number;
  /** Whether lines that do not count may lie behind the end of the journal. */
  #journalTorn = false;
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
    await writing(folder, () => makeFolder(fileSystem, folder));
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
      const stale = torn || isLongJournal(text.length, slots.size);
      const end = stale ? await replaceJournal(fileSystem, journalPath, slots) : text.length;
      const journal = await openOrMake(fileSystem, journalPath);
      return new TileCache(options, data, journal, slots, end);
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
   * Writes a tile (a multiple of 4096 bytes). It is there once a `confirm` after this resolved. Rejects with TILE_CORRUPT where
   * the bytes do not have that hash; with DISK_WRITE, also where tiles before it could not be confirmed.
   */
  write(hash: string, bytes: Uint8Array): Promise<void> {
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
    return this.#inTurn(() => this.#write(hash, bytes));
  }

  /**
   * Resolves when every tile that was written is there and would survive a loss of power. Rejects with DISK_WRITE; the tiles are
   * then forgotten. So it does where one of `hashes` is not there: an earlier group failed, whoever was told of it.
   */
  confirm(hashes: readonly string[]): Promise<void> {
    return this.#inTurn(async () => {
      await this.#confirm();
      const lost = hashes.find(hash => !this.#slots.has(hash));
      if (lost !== undefined)
        throw new PotluckError(
          'DISK_WRITE',
          `${this.#dataPath}: tile ${lost.slice(0, 16)} could not be kept. It will be fetched again.`,
        );
    });
  }

  /**
   * Forgets tiles; their room is used again, unless the disk cannot hold them there (`broken`): then not before the next start. Hashes
   * that are not here are passed over. Rejects with DISK_WRITE.
   */
  remove(hashes: Iterable<string>, broken = false): Promise<void> {
    const wanted = new Set(hashes);
    return this.#inTurn(async () => {
      for (const hash of wanted) this.#forgetWritten(hash, broken);
      const gone = [...wanted].filter(hash => this.#slots.has(hash));
      if (gone.length === 0) return;
      await this.#append(gone.map(removeLine).join(''));
      for (const hash of gone) {
        if (!broken) this.#space.free(this.#slots.get(hash)!);
        this.#slots.delete(hash);
      }
    });
  }

  /** Waits for changes under way and closes the files. Tiles that were not confirmed are lost. */
  async close(): Promise<void> {
    if (this.#closed) return;
    await this.#inTurn(async () => {
      this.#closed = true;
      await this.#data.close();
      await this.#journal.close();
    });
  }

  /**
   * Forgets every tile and begins another file where somebody removed the one that is open: what is written there is lost. Rejects
   * with DISK_WRITE where tiles wait to be confirmed.
   */
  async #renewIfLost(): Promise<void> {
    const { fileSystem } = this.#options;
    if (await isThere(fileSystem, this.#dataPath)) return;
    const unconfirmed = this.#written.size;
    await this.#append([...this.#slots.keys()].map(removeLine).join(''));
    this.#slots.clear();
    this.#written.clear();
    this.#writtenBytes = 0;
    this.#space = new SlotSpace([]);
    const lost = this.#data;
    this.#data = await openOrMake(fileSystem, this.#dataPath);
    await lost.close();
    if (unconfirmed > 0)
      throw new PotluckError(
        'DISK_WRITE',
        `${this.#dataPath}: was removed while tiles were received. They will be fetched again.`,
      );
  }

  async #write(hash: string, bytes: Uint8Array): Promise<void> {
    await this.#renewIfLost();
    await this.#mendJournal();
    await this.#shortenJournal();
    if (this.#slots.has(hash) || this.#written.has(hash)) return;
    const offset = this.#space.take(bytes.length);
    const slot: Slot = { offset, bytes: bytes.length, crc32c: this.#options.crc32c(bytes, 0) };
    try {
      await writeFully(this.#data, this.#dataPath, bytes, offset);
    } catch (error) {
      this.#space.free(slot);
      throw error;
    }
    const { now } = this.#options;
    if (this.#written.size === 0) this.#writtenSince = now();
    this.#written.set(hash, slot);
    this.#writtenBytes += slot.bytes;
    if (this.#writtenBytes >= GROUP_BYTES || now() - this.#writtenSince >= GROUP_MILLISECONDS)
      await this.#confirm();
  }

  async #confirm(): Promise<void> {
    if (this.#written.size === 0) return;
    await this.#renewIfLost();
    try {
      await writing(this.#dataPath, () => this.#data.datasync());
      await this.#append([...this.#written].map(([hash, slot]) => putLine(hash, slot)).join(''));
    } catch (error) {
      // After a sync that failed nobody knows which bytes are on disk, and the next one would not say so.
      for (const hash of [...this.#written.keys()]) this.#forgetWritten(hash, false);
      throw error;
    }
    for (const [hash, slot] of this.#written) this.#slots.set(hash, slot);
    this.#written.clear();
    this.#writtenBytes = 0;
  }

  #forgetWritten(hash: string, broken: boolean): void {
    const slot = this.#written.get(hash);
    if (!slot) return;
    this.#written.delete(hash);
    this.#writtenBytes -= slot.bytes;
    if (!broken) this.#space.free(slot);
  }

  /** Appends lines and syncs them. */
  async #append(lines: string): Promise<void> {
    await this.#mendJournal();
    const bytes = new TextEncoder().encode(lines);
    this.#journalTorn = true;
    await writeFully(this.#journal, this.#journalPath, bytes, this.#journalEnd);
    await writing(this.#journalPath, () => this.#journal.datasync());
    this.#journalTorn = false;
    this.#journalEnd += bytes.length;
  }

  /** Takes away what an append that failed left, before other bytes lie where its lines say. */
  async #mendJournal(): Promise<void> {
    if (!this.#journalTorn) return;
    await writing(this.#journalPath, async () => {
      await this.#journal.truncate(this.#journalEnd);
      await this.#journal.datasync();
    });
    this.#journalTorn = false;
  }

  /** Writes the journal anew where many of its lines do not count any more. */
  async #shortenJournal(): Promise<void> {
    if (!isLongJournal(this.#journalEnd, this.#slots.size)) return;
    const { fileSystem } = this.#options;
    await this.#journal.close(); // Windows puts nothing in the place of an open file
    try {
      this.#journalEnd = await replaceJournal(fileSystem, this.#journalPath, this.#slots);
    } finally {
      this.#journal = await openOrMake(fileSystem, this.#journalPath);
    }
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

/** Puts a journal of exactly these tiles in the place of the old one; its bytes. */
async function replaceJournal(
  fileSystem: FileSystem,
  path: string,
  slots: ReadonlyMap<string, Slot>,
): Promise<number> {
  const fresh = `${path}.new`;
  const bytes = new TextEncoder().encode(journalOf(slots));
  await writing(fresh, async () => {
    const file = await fileSystem.open(fresh, 'w');
    try {
      await writeFully(file, fresh, bytes, 0);
      await file.sync();
    } finally {
      await file.close();
    }
    await fileSystem.rename(fresh, path);
  });
  return bytes.length;
}
