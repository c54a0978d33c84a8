import { PotluckError } from '../errors/errors.ts';
import { sourceClosed } from './tile-errors.ts';
import { type Stretch, stretchesOf } from './tile-run.ts';
import type { LocateTile, ReadTimes, RecoverTile, TileSourceStats } from './tile-source.ts';

/** What went wrong with one tile of a stretch. */
export class TileFault extends Error {
  readonly tile: number;
  readonly error: PotluckError;

  constructor(tile: number, error: PotluckError) {
    super(error.message, { cause: error });
    this.tile = tile;
    this.error = error;
  }
}

export interface ReadCounterOptions {
  readonly locate: LocateTile;
  readonly recover?: RecoverTile;
  /** Reads and checks a stretch. Rejects with a TileFault. */
  read(stretch: Stretch, memory: ArrayBuffer): Promise<ReadTimes>;
}

/** Times that one tile is fetched anew in one read. */
const MOST_RECOVERIES = 2;

/**
 * Reads of one source: counts them, tries a failed one once more and then has the tile fetched anew, and lets `close`
 * wait for those under way.
 */
export class ReadCounter {
  readonly #options: ReadCounterOptions;
  #stats = { reads: 0, bytes: 0, microseconds: 0, cpuMicroseconds: 0, retries: 0, recovered: 0 };
  #underWay = new Set<Promise<void>>();
  #closed = false;

  constructor(options: ReadCounterOptions) {
    this.#options = options;
  }

  stats(): TileSourceStats {
    return { ...this.#stats };
  }

  /** As TileSource.read. */
  run(tiles: readonly number[], memory: ArrayBuffer, offset: number): Promise<void> {
    if (this.#closed) return Promise.reject(sourceClosed(tiles[0] ?? -1));
    const read = this.#all(tiles, memory, offset);
    this.#underWay.add(read);
    const ended = (): void => {
      this.#underWay.delete(read);
    };
    read.then(ended, ended);
    return read;
  }

  async #all(tiles: readonly number[], memory: ArrayBuffer, offset: number): Promise<void> {
    for (const stretch of stretchesOf(tiles, this.#options.locate, offset)) {
      await this.#stretch(stretch, memory);
    }
  }

  async #stretch(stretch: Stretch, memory: ArrayBuffer): Promise<void> {
    try {
      await this.#once(stretch, memory);
    } catch (first) {
      if (this.#closed) throw faultOf(first);
      this.#stats.retries++;
      // Each tile by itself: of several the system does not say which it cannot read.
      for (const tile of tilesOf(stretch)) await this.#again(tile, memory);
    }
  }

  async #again(tile: Stretch, memory: ArrayBuffer): Promise<void> {
    try {
      await this.#once(tile, memory);
    } catch (second) {
      await this.#recover(tile, memory, second, new Map());
    }
  }

  async #once(stretch: Stretch, memory: ArrayBuffer): Promise<void> {
    const { microseconds, cpuMicroseconds } = await this.#options.read(stretch, memory);
    this.#stats.reads += stretch.tiles.length;
    this.#stats.bytes += stretch.bytes;
    this.#stats.microseconds += microseconds;
    this.#stats.cpuMicroseconds += cpuMicroseconds;
  }

  /**
   * Gets the tile from elsewhere, then reads the stretch from where its tiles now lie. `fetched` counts, by tile, those
   * of this stretch so far.
   */
  async #recover(
    stretch: Stretch,
    memory: ArrayBuffer,
    fault: unknown,
    fetched: Map<number, number>,
  ): Promise<void> {
    const { recover, locate } = this.#options;
    if (!(fault instanceof TileFault) || !recover || this.#closed) throw faultOf(fault);
    const times = fetched.get(fault.tile) ?? 0;
    if (times === MOST_RECOVERIES) throw fault.error;
    fetched.set(fault.tile, times + 1);
    try {
      await recover(fault.tile, fault.error);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      throw new PotluckError(fault.error.code, `${fault.error.message} It could not be fetched: ${why}`, {
        cause: error,
      });
    }
    this.#stats.recovered++;
    for (const part of stretchesOf(stretch.tiles, locate, stretch.memoryOffset)) {
      try {
        await this.#once(part, memory);
      } catch (error) {
        await this.#recover(part, memory, error, fetched);
      }
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.allSettled(this.#underWay);
  }
}

/** A stretch for each tile of `stretch`. */
function tilesOf(stretch: Stretch): Stretch[] {
  let at = 0;
  return stretch.tiles.map((tile, i) => {
    const place = stretch.places[i]!;
    const { path, offset: fileOffset, bytes } = place;
    const memoryOffset = stretch.memoryOffset + at;
    at += bytes;
    return { path, fileOffset, memoryOffset, bytes, tiles: [tile], places: [place] };
  });
}

const faultOf = (error: unknown): unknown => (error instanceof TileFault ? error.error : error);
