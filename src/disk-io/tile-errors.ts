import { PotluckError } from '../errors/errors.ts';
import type { TilePlace } from './tile-source.ts';

/** What users see when a tile cannot be read. */

const placeText = (tile: number, place: TilePlace): string =>
  `tile ${tile} (${place.bytes} bytes at ${place.offset} of ${place.path})`;

export const unknownTile = (tile: number): PotluckError =>
  new PotluckError('DISK_READ', `Tile ${tile} is not on this device: fetch it before it is read.`);

export function readFailed(tile: number, place: TilePlace, reason: string, cause?: unknown): PotluckError {
  return new PotluckError(
    'DISK_READ',
    `Reading ${placeText(tile, place)} failed: ${reason}. Check the disk and the file.`,
    { cause },
  );
}

export function endedEarly(tile: number, place: TilePlace, actual: number): PotluckError {
  return readFailed(tile, place, `the file ends after ${actual} bytes of the tile`);
}

const hex = (crc: number): string => crc.toString(16).padStart(8, '0');

export function tileCorrupt(tile: number, place: TilePlace, actual: number): PotluckError {
  return new PotluckError(
    'TILE_CORRUPT',
    `The bytes of ${placeText(tile, place)} are not those of the tile: their CRC-32C is ${hex(actual)}, ` +
      `it should be ${hex(place.crc32c)}. Fetch the tile again or convert the model again.`,
  );
}

export const sourceClosed = (tile: number): PotluckError =>
  new PotluckError('STOPPED', `Tile ${tile} was not read: its source is closed.`);
