import { getSystemErrorName } from 'node:util';
import { LRUCache } from 'lru-cache';
import type { DiskAddon, OpenedFile, TileReadError } from './disk-addon.ts';
import { ReadCounter } from './read-counter.ts';
import { endedEarly, readFailed, tileCorrupt, unknownTile } from './tile-errors.ts';
import type { LocateTile, TilePlace, TileSource } from './tile-source.ts';

export interface NativeTileSourceOptions {
  /** Threads that read; 2 where none is given. */
  readonly threads?: number;
  readonly locate: LocateTile;
  /** Read past the page cache where the file system can; true where nothing is said. */
  readonly direct?: boolean;
}

const MOST_OPEN_FILES = 32;

/** Reads tiles with the addon's threads, past the page cache. */
export function createNativeTileSource(disk: DiskAddon, options: NativeTileSourceOptions): TileSource {
  const reader = disk.createReader(options.threads ?? 2);
  const wantDirect = options.direct ?? true;
  const counter = new ReadCounter();
  let how = 'nothing read yet';
  // A file that leaves the cache is closed by the addon after its last read.
  const files = new LRUCache<string, OpenedFile>({
    max: MOST_OPEN_FILES,
    dispose: opened => disk.closeFile(opened.file),
  });

  function open(tile: number, place: TilePlace): OpenedFile {
    const known = files.get(place.path);
    if (known) return known;
    let opened: OpenedFile;
    try {
      opened = disk.openFile(place.path, wantDirect);
    } catch (error) {
      throw readFailed(tile, place, systemReason(error), error);
    }
    files.set(place.path, opened);
    if (how !== 'buffered') how = opened.how;
    return opened;
  }

  /** Microseconds that the read took. */
  function attempt(tile: number, place: TilePlace, memory: ArrayBuffer, offset: number): Promise<number> {
    return new Promise((resolve, reject) => {
      const opened = open(tile, place);
      disk.readTile(
        reader,
        opened.file,
        place.offset,
        place.bytes,
        memory,
        offset,
        place.crc32c,
        (error, microseconds) => {
          if (!error) return resolve(microseconds);
          // The file may have been replaced: the next try opens it anew.
          if (files.peek(place.path) === opened) files.delete(place.path);
          reject(asTileError(tile, place, error));
        },
      );
    });
  }

  let closing: Promise<void> | undefined;
  async function close(): Promise<void> {
    await counter.close();
    files.clear();
    disk.closeReader(reader);
  }

  return {
    get how() {
      return how;
    },
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

function asTileError(tile: number, place: TilePlace, error: TileReadError): Error {
  if (error.kind === 'crc') return tileCorrupt(tile, place, error.actual ?? 0);
  if (error.kind === 'short') return endedEarly(tile, place, error.actual ?? 0);
  return readFailed(tile, place, systemReason(error));
}

/** 'ENOENT: No such file or directory', as far as the error knows. */
function systemReason(error: unknown): string {
  const { errno, message } = error as { errno?: unknown; message?: unknown };
  const text = typeof message === 'string' ? message : String(error);
  // On Windows the number is not one of errno's.
  if (typeof errno !== 'number' || process.platform === 'win32') return text;
  return `${getSystemErrorName(-errno)}: ${text}`;
}
