import { LRUCache } from 'lru-cache';
import { PotluckError } from '../errors/errors.ts';
import { crc32c } from './crc32c.ts';
import { ReadCounter } from './read-counter.ts';
import { endedEarly, readFailed, tileCorrupt, unknownTile } from './tile-errors.ts';
import type { LocateTile, TilePlace, TileSource } from './tile-source.ts';

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
  /** Opens a file for reading. */
  open(path: string): Promise<TileFileHandle>;
  /** Monotonic clock in microseconds. */
  now(): number;
}

const MOST_OPEN_FILES = 32;

/** Reads tiles through the page cache and checks them in JavaScript, for where the addon is missing. */
export function createFileTileSource(options: FileTileSourceOptions): TileSource {
  const counter = new ReadCounter();
  const files = new OpenFiles(options.open);

  /** Microseconds that the read took. */
  async function attempt(
    tile: number,
    place: TilePlace,
    memory: ArrayBuffer,
    offset: number,
  ): Promise<number> {
    const start = options.now();
    const bytes = new Uint8Array(memory, offset, place.bytes);
    try {
      await files.use(place.path, handle => fill(handle, tile, place, bytes));
    } catch (error) {
      if (error instanceof PotluckError) throw error;
      throw readFailed(tile, place, error instanceof Error ? error.message : String(error), error);
    }
    return options.now() - start;
  }

  let closing: Promise<void> | undefined;
  async function close(): Promise<void> {
    await counter.close();
    await files.close();
  }

  return {
    how: 'buffered',
    async read(tile, memory, offset) {
      const place = options.locate(tile);
      if (!place) throw unknownTile(tile);
      await counter.run(tile, place.bytes, () => attempt(tile, place, memory, offset));
    },
    stats: () => counter.stats(),
    close() {
      closing ??= close();
      return closing;
    },
  };
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
