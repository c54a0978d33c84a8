/** Where the bytes of tiles come from. */
export interface TileSource {
  /** 'O_DIRECT', 'F_NOCACHE', 'buffered', ...: how it reads, for status. */
  readonly how: string;
  /**
   * Reads tile `tile` (index into the manifest) into `memory` at `offset` (a multiple of 4096) and checks its CRC-32C.
   * Rejects with DISK_READ or TILE_CORRUPT, naming file and tile.
   */
  read(tile: number, memory: ArrayBuffer, offset: number): Promise<void>;
  close(): Promise<void>;
}
