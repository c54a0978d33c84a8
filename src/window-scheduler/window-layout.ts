import { PotluckError } from '../errors/errors.ts';
import type { WindowPlan } from './plan-window.ts';
import type { TileRun } from './tile-runs.ts';

/**
 * Where runs may lie in the weights memory: fixed for the life of a window. The ring comes first, then a place for each
 * run in pin order; so the pinned runs are one piece, which grows and shrinks at its end.
 */
export interface WindowLayout {
  /** In execution order. */
  readonly runs: readonly TileRun[];
  /** Indices of runs: who is pinned first. */
  readonly pinOrder: readonly number[];
  /** Place of each run in the pin order; [runs]. */
  readonly pinPlaces: readonly number[];
  /** Byte offset of each run in the weights memory where it is pinned; [runs]. */
  readonly homes: readonly number[];
  /** Run and place in the run by tile. */
  readonly places: ReadonlyMap<number, TilePlaceInRun>;
  /** Of the ring at its largest. */
  readonly ringBytes: number;
  /** Most reads under way. */
  readonly readDepth: number;
}

export interface TilePlaceInRun {
  readonly run: number;
  /** Byte offset in the run. */
  readonly offset: number;
}

export function layOut(plan: WindowPlan, readDepth: number): WindowLayout {
  const { runs, pinOrder, ringBytes } = plan;
  const homes = new Array<number>(runs.length).fill(0);
  const pinPlaces = new Array<number>(runs.length).fill(-1);
  let offset = ringBytes;
  for (const [place, run] of pinOrder.entries()) {
    homes[run] = offset;
    pinPlaces[run] = place;
    offset += runs[run]!.bytes;
  }
  const places = new Map<number, TilePlaceInRun>();
  let tiles = 0;
  for (const [run, { tiles: members }] of runs.entries()) {
    for (const { tile, offset: at } of members) places.set(tile, { run, offset: at });
    tiles += members.length;
  }
  check(!pinPlaces.includes(-1) && pinOrder.length === runs.length, 'a run has no place in the pin order');
  check(places.size === tiles, 'a tile comes twice');
  check(Number.isInteger(readDepth) && readDepth >= 1, 'no reads are allowed');
  return { runs, pinOrder, pinPlaces, homes, places, ringBytes, readDepth };
}

/** Byte offset behind the first `count` pinned runs. */
export function pinnedEnd(layout: WindowLayout, count: number): number {
  const last = layout.pinOrder[count - 1];
  return last === undefined ? layout.ringBytes : layout.homes[last]! + layout.runs[last]!.bytes;
}

function check(holds: boolean, otherwise: string): void {
  if (!holds) throw new PotluckError('INTERNAL', `The window cannot be laid out: ${otherwise}.`);
}
