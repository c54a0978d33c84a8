import { unknownTile } from './tile-errors.ts';
import type { LocateTile, TilePlace } from './tile-source.ts';

/** Tiles that lie one behind the other in one file. */
export interface Stretch {
  readonly path: string;
  /** Byte offset of the first in the file. */
  readonly fileOffset: number;
  /** Byte offset of the first in the memory that it is read to. */
  readonly memoryOffset: number;
  readonly bytes: number;
  readonly tiles: readonly number[];
  readonly places: readonly TilePlace[];
}

/** Cuts `tiles`, which go one behind the other to `memoryOffset`, into stretches. Throws DISK_READ for a tile that is not here. */
export function stretchesOf(tiles: readonly number[], locate: LocateTile, memoryOffset: number): Stretch[] {
  const stretches: (Stretch & { bytes: number; tiles: number[]; places: TilePlace[] })[] = [];
  let at = memoryOffset;
  for (const tile of tiles) {
    const place = locate(tile);
    if (!place) throw unknownTile(tile);
    const last = stretches.at(-1);
    if (last?.path === place.path && last.fileOffset + last.bytes === place.offset) {
      last.bytes += place.bytes;
      last.tiles.push(tile);
      last.places.push(place);
    } else {
      const { path, offset: fileOffset, bytes } = place;
      stretches.push({ path, fileOffset, memoryOffset: at, bytes, tiles: [tile], places: [place] });
    }
    at += place.bytes;
  }
  return stretches;
}
