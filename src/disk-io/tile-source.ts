/** Where the bytes of tiles come from. */
export interface TileSource {
  /** 'O_DIRECT', 'F_NOCACHE', 'buffered', ...: how it reads, for status. */
  readonly how: string;
  /**
   * Reads `tiles` (indices into the manifest) one behind the other into `memory` from `offset` (a multiple of 4096) on
   * and checks the CRC-32C of each. Neighbours on disk are read at once. A read that fails is tried once more, then
   * the tile is fetched anew where that is possible. Rejects with DISK_READ or TILE_CORRUPT, naming file and tile, or STOPPED.
   */
  read(tiles: readonly number[], memory: ArrayBuffer, offset: number): Promise<void>;
  stats(): TileSourceStats;
  /** Waits for the reads under way; later reads reject with STOPPED. */
  close(): Promise<void>;
}

/** Since the source was made. */
export interface TileSourceStats {
  /** Tiles read, checked and found right. */
  readonly reads: number;
  /** Their bytes. */
  readonly bytes: number;
  /** Sum of their times, in microseconds; reads beside each other each count. */
  readonly microseconds: number;
  /** Processor time of the threads that read and check, in microseconds; 0 where it is not known. */
  readonly cpuMicroseconds: number;
  /** Reads that were tried a second time. */
  readonly retries: number;
  /** Tiles that were fetched anew because their bytes here were lost or wrong. */
  readonly recovered: number;
}

/** What one read took, in microseconds. */
export interface ReadTimes {
  readonly microseconds: number;
  readonly cpuMicroseconds: number;
}

/** Gets the tile onto this disk anew; rejects where no other device has it. `locate` then knows the new place. */
export type RecoverTile = (tile: number, reason: Error) => Promise<void>;

/** Where a tile lies. */
export interface TilePlace {
  readonly path: string;
  /** Byte offset in the file; a multiple of 4096. */
  readonly offset: number;
  /** A multiple of 4096. */
  readonly bytes: number;
  readonly crc32c: number;
}

/** The place of a tile, or undefined where the device does not have it. */
export type LocateTile = (tile: number) => TilePlace | undefined;
