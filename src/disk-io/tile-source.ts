/** Where the bytes of tiles come from. */
export interface TileSource {
  /** 'O_DIRECT', 'F_NOCACHE', 'buffered', ...: how it reads, for status. */
  readonly how: string;
  /**
   * Reads tile `tile` (index into the manifest) into `memory` at `offset` (a multiple of 4096) and checks its CRC-32C.
   * A read that fails is tried once more. Rejects with DISK_READ or TILE_CORRUPT, naming file and tile, or STOPPED.
   */
  read(tile: number, memory: ArrayBuffer, offset: number): Promise<void>;
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
  /** Reads that were tried a second time. */
  readonly retries: number;
}

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
