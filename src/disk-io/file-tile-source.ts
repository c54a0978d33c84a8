import { LRUCache } from 'lru-cache';
import { PotluckError } from '../errors/errors.ts';
import { crc32c } from './crc32c.ts';
import { ReadCounter, TileFault } from './read-counter.ts';
import { endedEarly, readFailed, tileCorrupt } from './tile-errors.ts';
import type { Stretch } from './tile-run.ts';
import type { LocateTile, ReadTimes, RecoverTile, TilePlace, TileSource } from './tile-source.ts';

/** What is used of a FileHandle of node:fs/promises. */
export interface TileFileHandle {
  read(
    buffer: Uint8Array,
    offset: number,
    length: number,
    position: number,
  ): Promise<{ readonly bytesRead: number }>;
  close(): Promise<void>;
}

export interface FileTileSourceOptions {
  readonly locate: LocateTile;
  readonly recover?: RecoverTile;
  /** Opens a file for reading. */
  open(path: string): Promise<TileFileHandle>;
  /** Monotonic clock in microseconds. */
  now(): number;
}

const MOST_OPEN_FILES = 32;

/** Reads tiles through the page cache and checks them in JavaScript, for where the addon is missing. */
export function createFileTileSource(options: FileTileSourceOptions): TileSource {
  const files = new OpenFiles(options.open);

  async function read(stretch: Stretch, memory: ArrayBuffer): Promise<ReadTimes> {
    const start = options.now();
    let at = stretch.memoryOffset;
    for (const [i, place] of stretch.places.entries()) {
      const tile = stretch.tiles[i]!;
      const bytes = new Uint8Array(memory, at, place.bytes);
      at += place.bytes;
      try {
        await files.use(place.path, handle => fill(handle, tile, place, bytes));
      } catch (error) {
        throw new TileFault(tile, asTileError(tile, place, error));
      }
    }
    return { microseconds: options.now() - start, cpuMicroseconds: 0 };
  }

  const { locate, recover } = options;
  const counter = new ReadCounter({ locate, read, ...(recover ? { recover } : {}) });
  let closing: Promise<void> | undefined;
  async function close(): Promise<void> {
    await counter.close();
    await files.close();
  }

  return {
    how: 'buffered',
    read: (tiles, memory, offset) => counter.run(tiles, memory, offset),
    stats: () => counter.stats(),
    close() {
      closing ??= close();
      return closing;
    },
  };
}

function asTileError(tile: number, place: TilePlace, error: unknown): PotluckError {
  if (error instanceof PotluckError) return error;
  return readFailed(tile, place, error instanceof Error ? error.message : String(error), error);
}

async function fill(
  handle: TileFileHandle,
  tile: number,
  place: TilePlace,
  bytes: Uint8Array,
): Promise<void> {
  let done = 0;
  while (done < place.bytes) {
    const { bytesRead } = await handle.read(bytes, done, place.bytes - done, place.offset + done);
    if (bytesRead === 0) throw endedEarly(tile, place, done);
    done += bytesRead;
  }
  const actual = crc32c(bytes);
  if (actual !== place.crc32c) throw tileCorrupt(tile, place, actual);
}

interface OpenFile {
  readonly handle: Promise<TileFileHandle>;
  users: number;
  /** No longer in the cache: closed after its last use. */
  retired: boolean;
}

/** One open file per path, a bounded number of them; a file whose use failed is opened anew. */
class OpenFiles {
  readonly #open: (path: string) => Promise<TileFileHandle>;
  readonly #closing = new Set<Promise<void>>();
  readonly #files = new LRUCache<string, OpenFile>({
    max: MOST_OPEN_FILES,
    dispose: file => {
      file.retired = true;
      if (file.users === 0) this.#close(file);
    },
  });

  constructor(open: (path: string) => Promise<TileFileHandle>) {
    this.#open = open;
  }

  async use(path: string, work: (handle: TileFileHandle) => Promise<void>): Promise<void> {
    let file = this.#files.get(path);
    if (!file) {
      file = { handle: this.#open(path), users: 0, retired: false };
      this.#files.set(path, file);
    }
    file.users++;
    try {
      await work(await file.handle);
    } catch (error) {
      if (this.#files.peek(path) === file) this.#files.delete(path);
      throw error;
    } finally {
      file.users--;
      if (file.retired && file.users === 0) this.#close(file);
    }
  }

  #close(file: OpenFile): void {
    const closing = file.handle.then(handle => handle.close());
    const ended = (): void => {
      this.#closing.delete(closing);
    };
    this.#closing.add(closing);
    // A file that was never opened has nothing to close, and a failed close after reads alone loses nothing.
    closing.then(ended, ended);
  }

  async close(): Promise<void> {
    this.#files.clear();
    await Promise.allSettled(this.#closing);
  }
}
