import { PotluckError } from '../errors/errors.ts';

/** A tile of this device. */
export interface WindowTile {
  /** Index into the manifest. */
  readonly tile: number;
  /** A multiple of 4096. */
  readonly bytes: number;
  /** File and byte offset where it lies; tiles that are neighbours there may be read at once. */
  readonly place?: { readonly path: string; readonly offset: number };
}

/** Tiles next to each other in execution order and on disk: the unit that is read, pinned and streamed. */
export interface TileRun {
  readonly tiles: readonly RunTile[];
  readonly bytes: number;
}

export interface RunTile {
  readonly tile: number;
  readonly bytes: number;
  /** Byte offset in the run. */
  readonly offset: number;
}

const ALIGNMENT = 4096;

/** Groups `tiles`, in execution order, into runs of at most `mostBytes` (or of one tile). */
export function makeRuns(tiles: readonly WindowTile[], mostBytes: number): TileRun[] {
  const runs: { tiles: RunTile[]; bytes: number }[] = [];
  let before: WindowTile | undefined;
  for (const tile of tiles) {
    checkTile(tile);
    const run = runs.at(-1);
    if (run && before && run.bytes + tile.bytes <= mostBytes && areNeighbours(before, tile)) {
      run.tiles.push({ tile: tile.tile, bytes: tile.bytes, offset: run.bytes });
      run.bytes += tile.bytes;
    } else {
      runs.push({ tiles: [{ tile: tile.tile, bytes: tile.bytes, offset: 0 }], bytes: tile.bytes });
    }
    before = tile;
  }
  return runs;
}

function areNeighbours(before: WindowTile, after: WindowTile): boolean {
  if (!before.place || !after.place) return false;
  return before.place.path === after.place.path && before.place.offset + before.bytes === after.place.offset;
}

function checkTile({ tile, bytes }: WindowTile): void {
  if (Number.isSafeInteger(bytes) && bytes > 0 && bytes % ALIGNMENT === 0) return;
  throw new PotluckError('INTERNAL', `Tile ${tile} has ${bytes} bytes: not a multiple of ${ALIGNMENT}.`);
}
