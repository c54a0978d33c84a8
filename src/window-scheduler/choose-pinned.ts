import { PotluckError } from '../errors/errors.ts';

/** A tile of this device. */
export interface WindowTile {
  /** Index into the manifest. */
  readonly tile: number;
  /** A multiple of 4096. */
  readonly bytes: number;
}

/** Which tiles stay in memory. The weights memory holds the pinned tiles, one after another, and then the ring. */
export interface WindowPlan {
  /** For each tile in execution order: stays in memory (true) or streams through the ring. */
  readonly pinned: readonly boolean[];
  readonly pinnedBytes: number;
  /** 0 where everything is pinned. */
  readonly ringBytes: number;
  /** Bytes read in a pass that uses every tile. */
  readonly streamedBytes: number;
}

/** MEMORY_TOO_SMALL with the least budget that would do, in bytes. */
export class MemoryTooSmallError extends PotluckError {
  readonly leastBytes: number;

  constructor(message: string, leastBytes: number) {
    super('MEMORY_TOO_SMALL', message);
    this.leastBytes = leastBytes;
  }
}

const ALIGNMENT = 4096;
/** Tiles in flight that a disk needs to be busy, and one that is computed. */
const USUAL_RING_TILES = 5;

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;

/**
 * The least budget for these tiles: all of them, or twice the largest, whichever is less. With twice the largest, one
 * tile is read while another is computed (where sizes differ, sometimes only after it).
 */
export function leastWindowBytes(tiles: readonly WindowTile[]): number {
  const { total, largest } = measure(tiles);
  return Math.min(total, 2 * largest);
}

/**
 * Chooses which tiles stay in memory, evenly over the pass. `budget` is in bytes, for tiles alone; `leastRing` is the
 * ring to have where something streams (cut down where the budget is smaller). Throws MemoryTooSmallError.
 */
export function choosePinned(tiles: readonly WindowTile[], budget: number, leastRing?: number): WindowPlan {
  const { total, largest } = measure(tiles);
  const usable = Math.floor(budget / ALIGNMENT) * ALIGNMENT;
  if (total <= usable) {
    return { pinned: tiles.map(() => true), pinnedBytes: total, ringBytes: 0, streamedBytes: 0 };
  }
  const least = leastWindowBytes(tiles);
  if (usable < least) throw tooSmall(budget, least, largest, total);
  const ring = Math.min(usable, Math.max(2 * largest, leastRing ?? USUAL_RING_TILES * largest));
  const { pinned, pinnedBytes } = spread(tiles, total, usable - ring);
  return { pinned, pinnedBytes, ringBytes: usable - pinnedBytes, streamedBytes: total - pinnedBytes };
}

/**
 * Error diffusion: every tile adds its share of `capacity`, and is pinned when the shares so far pay for it. Counted in
 * pages times pages, so that nothing is rounded.
 */
function spread(
  tiles: readonly WindowTile[],
  total: number,
  capacity: number,
): { pinned: boolean[]; pinnedBytes: number } {
  const totalPages = total / ALIGNMENT;
  const capacityPages = capacity / ALIGNMENT;
  let owed = 0;
  let pinnedBytes = 0;
  const pinned = tiles.map(({ bytes }) => {
    const pages = bytes / ALIGNMENT;
    owed += pages * capacityPages;
    if (owed < pages * totalPages) return false;
    owed -= pages * totalPages;
    pinnedBytes += bytes;
    return true;
  });
  return { pinned, pinnedBytes };
}

function measure(tiles: readonly WindowTile[]): { total: number; largest: number } {
  let total = 0;
  let largest = 0;
  for (const { tile, bytes } of tiles) {
    if (!Number.isSafeInteger(bytes) || bytes <= 0 || bytes % ALIGNMENT !== 0) {
      throw new PotluckError('INTERNAL', `Tile ${tile} has ${bytes} bytes: not a multiple of ${ALIGNMENT}.`);
    }
    total += bytes;
    largest = Math.max(largest, bytes);
  }
  return { total, largest };
}

function tooSmall(budget: number, least: number, largest: number, total: number): MemoryTooSmallError {
  const why =
    least === total
      ? 'to hold all of them'
      : `to read one tile (${megabytes(largest)} at most) while another is computed`;
  return new MemoryTooSmallError(
    `${megabytes(Math.max(0, budget))} are left for the tiles of this device, and the least that would do is ${megabytes(least)} ` +
      `(${least} bytes), ${why}. Give it more memory or a shorter context.`,
    least,
  );
}
