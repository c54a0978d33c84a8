import { LRUCache } from 'lru-cache';
import type { TileSource } from '../disk-io/tile-source.ts';
import { PotluckError } from '../errors/errors.ts';
import type { ModelShape } from '../pack/manifest.ts';
import { tileBytes, tilesPerExpert } from '../pack/tile-shape.ts';
import { notRead, type PlacedNow, type WindowDeadline } from './window.ts';

export interface ExpertCacheOptions {
  /** Weights memory, and the part of it that is the cache's: bytes from `offset` on, both multiples of 4096. */
  readonly memory: ArrayBuffer;
  readonly offset: number;
  readonly bytes: number;
  /** Bytes of every expert tile. */
  readonly tileBytes: number;
  /** Stays the caller's: `close` does not close it. */
  readonly source: TileSource;
  /** Most reads under way; 4 where nothing is said. */
  readonly readDepth?: number;
  /** How long `take` waits before it rejects with DEADLINE; without it, as long as the disk takes. */
  readonly deadline?: WindowDeadline;
}

export interface ExpertCacheStats {
  /** What fits at a time. */
  readonly heldBytes: number;
  /** Tiles that were wanted and in memory, or had to be read, since the start. */
  readonly hits: number;
  readonly misses: number;
  readonly streamedBytes: number;
}

const USUAL_READ_DEPTH = 4;

/** The least memory for the expert tiles of a device (`total` bytes): all of them, or those of one expert and one more. */
export const leastExpertBytes = (shape: ModelShape, total: number): number =>
  shape.experts === null ? 0 : Math.min(total, (tilesPerExpert(shape) + 1) * tileBytes(shape, 'expert'));

/**
 * The expert tiles of this device that are in memory now. Which experts a token needs is known only when the router has
 * picked, and some are picked far more often than others: so the least recently used make room, unlike in a window.
 */
export class ExpertCache {
  readonly #options: ExpertCacheOptions;
  readonly #places: number;
  /** Byte offsets of tiles that nobody uses now. */
  readonly #idle: LRUCache<number, number>;
  readonly #used = new Map<number, number>();
  readonly #reads = new Map<number, Promise<void>>();
  readonly #free: number[];
  /** What went wrong with tiles, since the last take began. */
  readonly #failures = new Map<number, unknown>();
  #closed = false;
  #hits = 0;
  #misses = 0;

  /** Throws INTERNAL where not one tile fits. */
  constructor(options: ExpertCacheOptions) {
    this.#options = options;
    this.#places = Math.floor(options.bytes / options.tileBytes);
    if (this.#places < 1 || options.offset + options.bytes > options.memory.byteLength)
      throw new PotluckError('INTERNAL', `A cache of ${options.bytes} bytes has no room for an expert tile.`);
    this.#idle = new LRUCache({ max: this.#places });
    this.#free = Array.from(
      { length: this.#places },
      (_, i) => options.offset + i * options.tileBytes,
    ).reverse();
  }

  /**
   * Those of `tiles` that are in memory now, `most` at the most: at once, or when the first was read; reads of others begin.
   * Each is the caller's until `release`. `tiles` are those still wanted; one take at a time. Rejects with DISK_READ,
   * TILE_CORRUPT, DEADLINE or STOPPED; a take that failed may be repeated.
   */
  async take(tiles: readonly number[], most: number): Promise<PlacedNow[]> {
    this.#failures.clear(); // nobody waited for those reads: what is still wanted is read again
    let wait: { readonly late: Promise<never>; end(): void } | undefined;
    try {
      for (;;) {
        if (this.#closed) throw new PotluckError('STOPPED', 'The cache of experts is closed.');
        const placed = this.#collect(tiles, most);
        this.#readMissing(tiles);
        if (placed.length > 0) return placed;
        if (this.#reads.size === 0)
          throw new PotluckError('INTERNAL', 'All places of the cache of experts are in use.');
        wait ??= this.#startWait(tiles);
        await Promise.race([wait.late, ...this.#reads.values()]);
        for (const tile of tiles) if (this.#failures.has(tile)) throw this.#failures.get(tile);
      }
    } finally {
      wait?.end();
    }
  }

  /** Ends the use of tiles that `take` gave. */
  release(tiles: readonly number[]): void {
    for (const tile of tiles) {
      const offset = this.#used.get(tile);
      if (offset === undefined) continue;
      this.#used.delete(tile);
      this.#idle.set(tile, offset);
    }
  }

  /** Bytes of the cache that were ever written. */
  get memoryBytes(): number {
    return (this.#places - this.#free.length) * this.#options.tileBytes;
  }

  stats(): ExpertCacheStats {
    const { tileBytes: each } = this.#options;
    return {
      heldBytes: this.#places * each,
      hits: this.#hits,
      misses: this.#misses,
      streamedBytes: this.#misses * each,
    };
  }

  /** Resolves when nothing writes to the memory any more. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(this.#reads.values());
  }

  #collect(tiles: readonly number[], most: number): PlacedNow[] {
    const placed: PlacedNow[] = [];
    for (const tile of tiles) {
      if (placed.length === most) break;
      const offset = this.#idle.get(tile);
      if (offset === undefined) continue;
      this.#idle.delete(tile);
      this.#used.set(tile, offset);
      if (!this.#fresh.delete(tile)) this.#hits++;
      placed.push({ tile, offset });
    }
    return placed;
  }

  /** Tiles that were read and not taken since: taking one is no hit. */
  readonly #fresh = new Set<number>();

  #readMissing(tiles: readonly number[]): void {
    const depth = this.#options.readDepth ?? USUAL_READ_DEPTH;
    for (const tile of tiles) {
      if (this.#reads.size >= depth) return;
      if (this.#used.has(tile) || this.#idle.has(tile) || this.#reads.has(tile)) continue;
      const offset = this.#free.pop() ?? this.#evict(tiles);
      if (offset === undefined) return;
      this.#misses++;
      const read = this.#read(tile, offset).finally(() => this.#reads.delete(tile));
      this.#reads.set(tile, read);
    }
  }

  /** The place of the least recently used tile; none of those that are wanted now. */
  #evict(wanted: readonly number[]): number | undefined {
    for (const tile of this.#idle.rkeys()) {
      if (wanted.includes(tile)) continue;
      const offset = this.#idle.peek(tile);
      this.#idle.delete(tile);
      this.#fresh.delete(tile);
      return offset;
    }
    return undefined;
  }

  /** Never rejects: a take that waits for the tile throws what went wrong. */
  async #read(tile: number, offset: number): Promise<void> {
    try {
      await this.#options.source.read([tile], this.#options.memory, offset);
      this.#fresh.add(tile);
      this.#idle.set(tile, offset);
    } catch (error) {
      this.#free.push(offset);
      this.#failures.set(tile, error);
    }
  }

  /** `late` rejects with DEADLINE when the time is over, unless `end` comes before. */
  #startWait(tiles: readonly number[]): { late: Promise<never>; end(): void } {
    const { deadline } = this.#options;
    let timer: unknown;
    const late = new Promise<never>((_, reject) => {
      timer = deadline?.timers.setTimeout(
        () => reject(notRead(tiles[0]!, deadline.milliseconds)),
        deadline.milliseconds,
      );
    });
    return { late, end: () => deadline?.timers.clearTimeout(timer) };
  }
}
