import { open } from 'node:fs/promises';
import type { TileReaders } from '../cluster/tile-routes.ts';
import { readFully } from '../pack/file-system.ts';
import { readEmbeddingRow } from './embedding-rows.ts';
import { CONSTANTS_FILE, type LocalModel, type ModelStore } from './model-store.ts';

/** What this device sends to others: tiles, pack files and embedding rows of the models that it has. */
export function tileReaders(store: ModelStore): TileReaders {
  return {
    async readTile(sha256, memory) {
      const place = store.locate(sha256);
      if (!place) return undefined;
      const bytes = memory(place.bytes);
      const file = await open(place.path, 'r');
      try {
        await readFully(file, place.path, bytes, place.offset);
      } finally {
        await file.close();
      }
      return bytes;
    },
    readPackFile: (id, name) => packFile(store.find(id), name),
    readEmbeddingRow: (id, row) => readEmbeddingRow(store.find(id), row),
  };
}

async function packFile(model: LocalModel | undefined, name: string): Promise<Uint8Array | undefined> {
  if (name === 'manifest.json') return model?.manifestBytes;
  if (name === CONSTANTS_FILE) return model && new Uint8Array(model.constants);
  return model?.readFile(name);
}
