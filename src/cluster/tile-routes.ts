import type { ErrorCode } from '../errors/errors.ts';
import { ERRORS } from '../errors/errors.ts';

/** So many bytes that a tile is read into. */
export type TileMemory = (bytes: number) => Uint8Array;

/** What the link port serves to other devices. */
export interface TileReaders {
  /**
   * Bytes of the tile with this SHA-256, in memory that `memory` gives; undefined where it is not here. One that is damaged here is fetched
   * from another device first.
   */
  readTile(sha256: string, memory: TileMemory): Promise<Uint8Array | undefined>;
  /** The same, for a device that looks for a tile that it lost: only what lies here. */
  readOwnTile(sha256: string, memory: TileMemory): Promise<Uint8Array | undefined>;
  /** A file of a pack (manifest.json, constants.bin, tokenizer.json ...); undefined where it is not here. */
  readPackFile(modelId: string, name: string): Promise<Uint8Array | undefined>;
  /** An embedding row as it is stored; undefined where it is not here. */
  readEmbeddingRow(modelId: string, row: number): Promise<Uint8Array | undefined>;
}

export interface RouteAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly bytes: Uint8Array;
}

const TILE = /^\/potluck\/tile\/([0-9a-f]{64})(\/own)?$/;
/** No slash and no leading dot: a name is a file of the pack's folder. */
const PACK_FILE = /^\/potluck\/pack\/([0-9a-f]{16,64})\/([A-Za-z0-9][A-Za-z0-9._-]{0,99})$/;

const EMBEDDING_ROW = /^\/potluck\/embedding\/([0-9a-f]{16,64})\/(\d{1,7})$/;

/** Answers GET `path` of the link port, or null where the path is not one of these routes. Rejects where reading fails. */
export async function tileRoutes(
  path: string,
  readers: TileReaders,
  memory: TileMemory = bytes => new Uint8Array(bytes),
): Promise<RouteAnswer | null> {
  const tile = TILE.exec(path);
  if (tile !== null) {
    // content has this address for ever
    const read = tile[2] === undefined ? readers.readTile : readers.readOwnTile;
    return answer(await read(tile[1]!, memory), 'public, max-age=31536000, immutable');
  }
  const row = EMBEDDING_ROW.exec(path);
  if (row !== null) return answer(await readers.readEmbeddingRow(row[1]!, Number(row[2])), 'no-cache');
  const file = PACK_FILE.exec(path);
  if (file !== null) return answer(await readers.readPackFile(file[1]!, file[2]!), 'no-cache');
  return null;
}

function answer(bytes: Uint8Array | undefined, caching: string): RouteAnswer {
  if (bytes === undefined) return refusal('UNKNOWN_ROUTE');
  return {
    status: 200,
    headers: {
      'content-type': 'application/octet-stream',
      'content-length': String(bytes.length),
      'cache-control': caching,
    },
    bytes,
  };
}

function refusal(code: ErrorCode): RouteAnswer {
  const { status, meaning } = ERRORS[code];
  const bytes = new TextEncoder().encode(JSON.stringify({ error: { code, message: meaning } }));
  return {
    status,
    headers: { 'content-type': 'application/json', 'content-length': String(bytes.length) },
    bytes,
  };
}
