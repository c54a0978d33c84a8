import { PotluckError } from '../errors/errors.ts';
import { makeRuns, type TileRun, type WindowTile } from './tile-runs.ts';

/**
 * What stays in memory and what streams: a pure function of the tiles, their order, the budget and the disk.
 *
 * Tiles are read in runs of neighbours. Part of the budget is the ring, through which runs stream; in the rest, runs are
 * pinned. The order in which runs get pinned is fixed, and any first part of it is spread evenly over the pass, so that
 * disk time hides behind compute. A larger budget pins the same runs and more: speed never falls as memory grows.
 */
export interface WindowPlan {
  /** In execution order. */
  readonly runs: readonly TileRun[];
  /** Indices of runs: who is pinned first. */
  readonly pinOrder: readonly number[];
  /** Ring at its largest, where something streams; see ringFor. */
  readonly ringBytes: number;
  /** Sum of all runs. */
  readonly totalBytes: number;
}

/** MEMORY_TOO_SMALL with the least budget that would do, in bytes. */
export class MemoryTooSmallError extends PotluckError {
  readonly leastBytes: number;

  constructor(message: string, leastBytes: number) {
    super('MEMORY_TOO_SMALL', message);
    this.leastBytes = leastBytes;
  }
}

/** Disks are at their best from here on: measured, 1 MiB reads reach 60 to 100 % of what 4 MiB reads do. */
const MOST_RUN_BYTES = 4 << 20;
/** The ring covers this long a pause of compute at the disk's rate; measured, a ring that fits the last cache (24 MiB) is up to
 *  20 % slower: reads then go over bytes that the caches still hold. */
const RING_SECONDS = 0.036;
/** What a disk is taken to do before it was measured, in bytes a second. */
const USUAL_DISK_RATE = 2e9;
/** Runs in the ring where memory allows: one in use, the others on their way. */
const LEAST_RING_RUNS = 4;
/** Runs that a small budget is cut into; measured with 18 MB, eight of 2 MB give a fifth to a third more than four of 4 MB: less of
 *  the ring waits for the rest of a run. */
const SMALL_BUDGET_RUNS = 8;
const ALIGNMENT = 4096;

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;
const sum = (tiles: readonly { readonly bytes: number }[]): number =>
  tiles.reduce((total, { bytes }) => total + bytes, 0);
const largestOf = (tiles: readonly { readonly bytes: number }[]): number =>
  tiles.reduce((most, { bytes }) => Math.max(most, bytes), 0);

/**
 * The least budget for these tiles: all of them, or twice the largest, whichever is less. With twice the largest, one
 * tile is read while another is computed (where sizes differ, sometimes only after it).
 */
export const leastWindowBytes = (tiles: readonly WindowTile[]): number =>
  Math.min(sum(tiles), 2 * largestOf(tiles));

/**
 * Plans the window of `tiles` (in execution order). `budget`: bytes for tiles alone; `tightest`: what that may become later, at
 * the least. `diskRate`: bytes a second, as measured; null before. Throws MemoryTooSmallError.
 */
export function planWindow(
  tiles: readonly WindowTile[],
  budget: number,
  diskRate: number | null = null,
  tightest = budget,
): WindowPlan {
  const least = leastWindowBytes(tiles);
  if (tightest < least) throw tooSmall(tiles, tightest, least);
  // Runs so small that several fit the ring, and two the smallest that it may become. A small budget is all ring: that is worth
  // more than pinning a little.
  const runs = makeRuns(tiles, Math.min(MOST_RUN_BYTES, budget / SMALL_BUDGET_RUNS, tightest / 2));
  const ring = Math.max(LEAST_RING_RUNS * largestOf(runs), (diskRate ?? USUAL_DISK_RATE) * RING_SECONDS);
  const ringBytes = roundUp(Math.max(least, Math.min(ring, budget, sum(tiles))));
  return {
    runs,
    pinOrder: spreadOrder(runs.length),
    ringBytes: Math.min(ringBytes, Math.floor(budget / ALIGNMENT) * ALIGNMENT),
    totalBytes: sum(tiles),
  };
}

/** How many runs of the pin order stay in memory with `budget` bytes for tiles: all, or what fits beside the ring. */
export function pinnedCount(plan: WindowPlan, budget: number): number {
  if (plan.totalBytes <= budget) return plan.runs.length;
  let left = budget - plan.ringBytes;
  let count = 0;
  for (const run of plan.pinOrder) {
    left -= plan.runs[run]!.bytes;
    if (left < 0) break;
    count++;
  }
  return Math.min(count, plan.runs.length - 1);
}

/** The smallest ring that the runs of a plan go through: one is read while another is computed. */
export const leastRingBytes = ({ runs, ringBytes }: WindowPlan): number =>
  Math.min(ringBytes, 2 * largestOf(runs));

/** The ring with `budget` bytes for tiles: that of the plan, or less where nothing is pinned any more and it still does not fit. */
export const ringFor = (plan: WindowPlan, budget: number): number =>
  Math.max(
    leastRingBytes(plan),
    Math.min(plan.ringBytes, Math.floor(Math.max(0, budget) / ALIGNMENT) * ALIGNMENT),
  );

/** 0 .. count - 1 in the order of their bit-reversed numbers (van der Corput): every first part of it is spread evenly. */
export function spreadOrder(count: number): number[] {
  const bits = Math.max(1, Math.ceil(Math.log2(Math.max(2, count))));
  const order: number[] = [];
  for (let i = 0; i < 2 ** bits; i++) {
    let reversed = 0;
    for (let bit = 0; bit < bits; bit++) if (i & (1 << bit)) reversed |= 1 << (bits - 1 - bit);
    if (reversed < count) order.push(reversed);
  }
  return order;
}

const roundUp = (bytes: number): number => Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;

function tooSmall(tiles: readonly WindowTile[], budget: number, least: number): MemoryTooSmallError {
  const why =
    least === sum(tiles)
      ? 'to hold all of them'
      : `to read one tile (${megabytes(largestOf(tiles))} at most) while another is computed`;
  return new MemoryTooSmallError(
    `${megabytes(Math.max(0, budget))} are left for the tiles of this device, and the least that would do is ${megabytes(least)} ` +
      `(${least} bytes), ${why}. Give it more memory or a shorter context.`,
    least,
  );
}
