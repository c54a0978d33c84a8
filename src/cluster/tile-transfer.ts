import { asPotluckError, PotluckError } from '../errors/errors.ts';
import { TileBuffer } from './tile-buffer.ts';

/** Most bytes of a tile that is sent. */
export const MAX_TILE_BYTES = 64 << 20;
/** Transfers at a time: one is checked and written while the next arrives. */
const IN_FLIGHT = 2;
const TRIES = 3;

export interface WantedTile {
  /** SHA-256, hex. */
  readonly hash: string;
  readonly bytes: number;
}

/** Keeps tiles. */
export interface TileSink {
  /** Takes a tile; rejects with TILE_CORRUPT where the bytes do not have the hash. `bytes` are used again afterwards. */
  write(hash: string, bytes: Uint8Array): Promise<void>;
  /** Resolves when these tiles, which were taken, are kept, whatever happens to this device. */
  confirm(hashes: readonly string[]): Promise<void>;
}

/** An HTTP GET at the hub: the body of a 200, else it rejects. */
export type GetBody = (path: string, signal: AbortSignal) => Promise<AsyncIterable<Uint8Array>>;

/**
 * Fetches `tiles` into `sink`, at most two in memory at a time; a broken transfer is tried three times. Tiles that arrived
 * are kept also where others did not. `onProgress` gets bytes done and bytes in all, as they arrive. Rejects with DEVICE_LOST, TILE_CORRUPT, DISK_WRITE or the reason of `signal`.
 */
export async function fetchTiles(
  tiles: readonly WantedTile[],
  get: GetBody,
  sink: TileSink,
  onProgress: (bytes: number, total: number) => void,
  signal: AbortSignal,
): Promise<void> {
  const tooLarge = tiles.find(tile => tile.bytes > MAX_TILE_BYTES);
  if (tooLarge !== undefined) {
    throw new PotluckError(
      'PROTOCOL',
      `Tile ${tooLarge.hash} has ${tooLarge.bytes} bytes, over ${MAX_TILE_BYTES}.`,
    );
  }
  const total = tiles.reduce((sum, tile) => sum + tile.bytes, 0);
  let arrived = 0;
  const count = (bytes: number): void => {
    arrived += bytes;
    onProgress(arrived, total);
  };
  const own = new AbortController();
  const both = AbortSignal.any([signal, own.signal]);
  const waiting = tiles.values();
  const worker = async (): Promise<void> => {
    const buffer = new TileBuffer();
    // the workers share one iterator
    for (const tile of waiting) await fetchTile(tile, buffer, get, sink, count, both);
  };
  const workers = Array.from({ length: IN_FLIGHT }, () =>
    worker().catch((error: unknown) => {
      own.abort(error);
      throw error;
    }),
  );
  // all of them have ended when this rejects, so nothing is written later
  const failed = (await Promise.allSettled(workers)).find(result => result.status === 'rejected');
  const confirmed = sink.confirm(failed === undefined ? tiles.map(({ hash }) => hash) : []);
  if (failed === undefined) return confirmed;
  // What failed first is what is told.
  await Promise.allSettled([confirmed]);
  throw signal.aborted ? signal.reason : own.signal.reason;
}

async function fetchTile(
  tile: WantedTile,
  buffer: TileBuffer,
  get: GetBody,
  sink: TileSink,
  count: (bytes: number) => void,
  signal: AbortSignal,
): Promise<void> {
  let last: PotluckError | null = null;
  for (let attempt = 0; attempt < TRIES; attempt++) {
    signal.throwIfAborted();
    let counted = 0;
    try {
      const bytes = await readBody(tile, buffer, get, signal, n => {
        counted += n;
        count(n);
      });
      await sink.write(tile.hash, bytes);
      return;
    } catch (error) {
      signal.throwIfAborted();
      count(-counted);
      last = asPotluckError(error);
      if (last.code === 'DISK_WRITE') throw last;
    }
  }
  const code = last?.code === 'TILE_CORRUPT' ? 'TILE_CORRUPT' : 'DEVICE_LOST';
  throw new PotluckError(code, `Tile ${tile.hash} did not arrive in ${TRIES} tries: ${last?.message}`, {
    cause: last,
  });
}

/** The whole body, [tile.bytes] uint8. */
async function readBody(
  tile: WantedTile,
  buffer: TileBuffer,
  get: GetBody,
  signal: AbortSignal,
  count: (bytes: number) => void,
): Promise<Uint8Array> {
  const whole = buffer.take(tile.bytes);
  let filled = 0;
  for await (const part of await get(`/potluck/tile/${tile.hash}`, signal)) {
    signal.throwIfAborted();
    if (filled + part.length > tile.bytes) {
      throw new PotluckError('PROTOCOL', `Tile ${tile.hash} is longer than ${tile.bytes} bytes.`);
    }
    whole.set(part, filled);
    filled += part.length;
    count(part.length);
  }
  if (filled < tile.bytes) {
    throw new PotluckError('PROTOCOL', `Tile ${tile.hash} ended after ${filled} of ${tile.bytes} bytes.`);
  }
  return whole;
}
