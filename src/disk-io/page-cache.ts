import type { DiskAddon } from './disk-addon.ts';

/** Reads of what the system has in memory of a file anyway. */
export interface PageCache {
  /** Fills `target` from byte `offset` of the file; false where that would have to wait for the disk. */
  read(offset: number, target: Uint8Array): boolean;
  close(): void;
}

/** Throws where the system refuses to open `path`, as DiskAddon.openFile. */
export function openPageCache(disk: DiskAddon, path: string): PageCache {
  const { file } = disk.openFile(path, false);
  return {
    read: (offset, target) => disk.readCached(file, offset, target),
    close: () => disk.closeFile(file),
  };
}
