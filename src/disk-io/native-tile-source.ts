import { getSystemErrorName } from 'node:util';
import { LRUCache } from 'lru-cache';
import type { PotluckError } from '../errors/errors.ts';
import type { DiskAddon, OpenedFile, TileReadError } from './disk-addon.ts';
import { ReadCounter, TileFault } from './read-counter.ts';
import { endedEarly, readFailed, tileCorrupt } from './tile-errors.ts';
import type { Stretch } from './tile-run.ts';
import type { LocateTile, ReadTimes, RecoverTile, TilePlace, TileSource } from './tile-source.ts';

export interface NativeTileSourceOptions {
  /** Threads that read; 2 where none is given. */
  readonly threads?: number;
  readonly locate: LocateTile;
  readonly recover?: RecoverTile;
  /** Read past the page cache where the file system can; true where nothing is said. */
  readonly direct?: boolean;
}

const MOST_OPEN_FILES = 32;

/** Reads tiles with the addon's threads, past the page cache. */
export function createNativeTileSource(disk: DiskAddon, options: NativeTileSourceOptions): TileSource {
  const reader = disk.createReader(options.threads ?? 2);
  const wantDirect = options.direct ?? true;
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
      throw new TileFault(tile, readFailed(tile, place, systemReason(error), error));
    }
    files.set(place.path, opened);
    if (how !== 'buffered') how = opened.how;
    return opened;
  }

  function read(stretch: Stretch, memory: ArrayBuffer): Promise<ReadTimes> {
    const { path, fileOffset, memoryOffset, tiles, places } = stretch;
    return new Promise((resolve, reject) => {
      const opened = open(tiles[0]!, places[0]!);
      const words = new Float64Array(2 * places.length);
      places.forEach(({ bytes, crc32c }, i) => {
        words[2 * i] = bytes;
        words[2 * i + 1] = crc32c;
      });
      disk.readRun(reader, opened.file, fileOffset, memory, memoryOffset, words, (error, ...times) => {
        const [microseconds, cpuMicroseconds] = times;
        if (!error) return resolve({ microseconds, cpuMicroseconds });
        // The file may have been replaced: the next try opens it anew.
        if (files.peek(path) === opened) files.delete(path);
        const tile = tiles[error.part]!;
        reject(new TileFault(tile, asTileError(tile, places[error.part]!, error)));
      });
    });
  }

  const { locate, recover } = options;
  const counter = new ReadCounter({ locate, read, ...(recover ? { recover } : {}) });
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
    read: (tiles, memory, offset) => counter.run(tiles, memory, offset),
    stats: () => counter.stats(),
    close() {
      closing ??= close();
      return closing;
    },
  };
}

function asTileError(tile: number, place: TilePlace, error: TileReadError): PotluckError {
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
