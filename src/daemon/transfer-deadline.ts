import { PACK_FILE_BYTES } from '../pack/read-manifest.ts';

/** How patient both ends of a transfer of tiles and pack files are. */
export interface TransferPatience {
  /** Milliseconds a request waits for its turn before it is told to come again. */
  readonly turn: number;
  /** Milliseconds a tile or file may take to be read from disk, before it is sent. */
  readonly read: number;
  /** Milliseconds a transfer may take whatever its size. */
  readonly least: number;
  /** Bytes a second that it must make at the least beyond that. */
  readonly bytesPerSecond: number;
}

/** Who asks gives up by itself a second after a turn and a read should have ended (http-get.ts). */
export const PATIENCE: TransferPatience = {
  turn: 6_000,
  read: 8_000,
  least: 30_000,
  bytesPerSecond: 128 << 10,
};

/** Milliseconds that a transfer of `bytes` may take: who gives or takes a byte now and then would hold the other end for ever. */
export const transferMilliseconds = (bytes: number, { least, bytesPerSecond }: TransferPatience): number =>
  least + Math.ceil((Math.min(bytes, PACK_FILE_BYTES) * 1000) / bytesPerSecond);
