import { PotluckError } from '../errors/errors.ts';
import type { WindowPlan, WindowTile } from './choose-pinned.ts';

export interface PinnedTile extends WindowTile {
  /** Byte offset in the weights memory. */
  readonly offset: number;
}

/** Where tiles may lie in the weights memory: fixed for the life of a window. */
export interface WindowLayout {
  /** In execution order, from the start of the memory. */
  readonly pinned: readonly PinnedTile[];
  /** Place in `pinned` by tile. */
  readonly pinnedPlaces: ReadonlyMap<number, number>;
  /** In execution order. */
  readonly streamed: readonly WindowTile[];
  /** Place in `streamed` by tile. */
  readonly streamedPlaces: ReadonlyMap<number, number>;
  /** First byte of the ring in the weights memory. */
  readonly ringOffset: number;
  readonly ringBytes: number;
  /** Most reads under way. */
  readonly readDepth: number;
}

/** Lays `tiles`, in execution order, out as `plan` (of choosePinned for the same tiles) says. */
export function layOut(tiles: readonly WindowTile[], plan: WindowPlan, readDepth: number): WindowLayout {
  const pinned: PinnedTile[] = [];
  const streamed: WindowTile[] = [];
  let offset = 0;
  tiles.forEach(({ tile, bytes }, i) => {
    if (plan.pinned[i]) {
      pinned.push({ tile, bytes, offset });
      offset += bytes;
    } else {
      streamed.push({ tile, bytes });
    }
  });
  const largest = streamed.reduce((most, { bytes }) => Math.max(most, bytes), 0);
  check(plan.pinned.length === tiles.length, 'the plan is of other tiles');
  check(offset === plan.pinnedBytes, 'the pinned tiles have other sizes');
  check(largest <= plan.ringBytes, 'a tile is larger than the ring');
  check(Number.isInteger(readDepth) && readDepth >= 1, 'no reads are allowed');
  check(new Set(tiles.map(({ tile }) => tile)).size === tiles.length, 'a tile comes twice');
  return {
    pinned,
    pinnedPlaces: placesOf(pinned),
    streamed,
    streamedPlaces: placesOf(streamed),
    ringOffset: offset,
    ringBytes: plan.ringBytes,
    readDepth,
  };
}

const placesOf = (tiles: readonly WindowTile[]): Map<number, number> =>
  new Map(tiles.map(({ tile }, place) => [tile, place]));

function check(holds: boolean, otherwise: string): void {
  if (!holds) throw new PotluckError('INTERNAL', `The window cannot be laid out: ${otherwise}.`);
}
