import * as fs from 'node:fs/promises';
import type { TileMemory, TileReaders } from '../cluster/tile-routes.ts';
import { asPotluckError, PotluckError } from '../errors/errors.ts';
import { openToRead, readFully } from '../pack/file-system.ts';
import { readEmbeddingRow } from './embedding-rows.ts';
import { CONSTANTS_FILE, type LocalModel, type ModelStore } from './model-store.ts';

export interface TileReadersOptions {
  readonly store: ModelStore;
  crc32c(bytes: Uint8Array, before: number): number;
  /** Gets a tile of a whole pack, whose bytes here are lost or wrong, from another device. Rejects where none has it. */
  repair(model: LocalModel, tile: number): Promise<void>;
}

/** What this device sends to others: tiles, pack files and embedding rows of the models that it has. */
export function tileReaders({ store, crc32c, repair }: TileReadersOptions): TileReaders {
  /** Tiles that are being repaired, by hash. */
  const repairing = new Map<string, Promise<void>>();
  const read = (sha256: string, memory: TileMemory) => readIntact(store, sha256, memory, crc32c);
  const repaired = (sha256: string): Promise<void> => {
    const underWay = repairing.get(sha256);
    if (underWay !== undefined) return underWay;
    const model = store.packs.find(pack => pack.tileOf(sha256) !== undefined);
    const tile = model?.tileOf(sha256);
    if (model === undefined || tile === undefined) return Promise.resolve();
    const begun = repair(model, tile).finally(() => repairing.delete(sha256));
    repairing.set(sha256, begun);
    return begun;
  };
  return {
    async readTile(sha256, memory) {
      try {
        return await read(sha256, memory);
      } catch (error) {
        if (!['TILE_CORRUPT', 'DISK_READ'].includes(asPotluckError(error).code)) throw error;
        await repaired(sha256);
        return read(sha256, memory);
      }
    },
    readOwnTile: read,
    readPackFile: (id, name) => packFile(store.find(id), name),
    readEmbeddingRow: (id, row) => readEmbeddingRow(store.find(id), row),
  };
}

/** Bytes of a tile that lies here; undefined where none does. Rejects with TILE_CORRUPT or DISK_READ. */
async function readIntact(
  store: ModelStore,
  sha256: string,
  memory: TileMemory,
  crc32c: (bytes: Uint8Array, before: number) => number,
): Promise<Uint8Array | undefined> {
  const place = store.locate(sha256);
  if (!place) return undefined;
  const bytes = memory(place.bytes);
  const file = await openToRead(fs, place.path);
  try {
    await readFully(file, place.path, bytes, place.offset);
  } finally {
    await file.close();
  }
  if (crc32c(bytes, 0) === place.crc32c) return bytes;
  throw new PotluckError(
    'TILE_CORRUPT',
    `${place.path}: tile ${sha256} at byte ${place.offset} is not what was written. Check the disk, and fetch or pack the model anew.`,
  );
}

async function packFile(model: LocalModel | undefined, name: string): Promise<Uint8Array | undefined> {
  if (name === 'manifest.json') return model?.manifestBytes;
  if (name === CONSTANTS_FILE) return model && new Uint8Array(model.constants);
  return model?.readFile(name);
}
