import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { fetchTiles, MAX_TILE_BYTES } from '../../src/cluster/tile-transfer.ts';
import { PotluckError } from '../../src/errors/errors.ts';

const tileBytes = (n: number): Uint8Array => new Uint8Array(8192 + n * 4096).fill(n + 1);
const hashOf = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
const tiles = [0, 1, 2, 3, 4].map(n => ({ hash: hashOf(tileBytes(n)), bytes: tileBytes(n).length }));
const content = new Map(tiles.map((t, n) => [`/potluck/tile/${t.hash}`, tileBytes(n)]));

class Store {
  readonly have = new Map<string, Uint8Array>();
  readonly #written = new Map<string, Uint8Array>();
  confirms = 0;

  constructor(readonly full = false) {}

  async write(hash: string, bytes: Uint8Array): Promise<void> {
    if (hashOf(bytes) !== hash) throw new PotluckError('TILE_CORRUPT', `Tile ${hash} is corrupt.`);
    await Promise.resolve();
    this.#written.set(hash, bytes.slice());
  }

  async confirm(): Promise<void> {
    await Promise.resolve();
    this.confirms++;
    if (this.full) throw new PotluckError('DISK_WRITE', 'The disk is full.');
    for (const [hash, bytes] of this.#written) this.have.set(hash, bytes);
  }
}

type Serve = (
  path: string,
  attempt: number,
) => AsyncIterable<Uint8Array> | Promise<AsyncIterable<Uint8Array>>;

async function* parts(bytes: Uint8Array, each = 1000): AsyncGenerator<Uint8Array> {
  for (let i = 0; i < bytes.length; i += each) yield bytes.subarray(i, i + each);
}

async function run(serve: Serve, signal = new AbortController().signal, store = new Store()) {
  const progress: [number, number][] = [];
  const attempts = new Map<string, number>();
  let open = 0;
  let most = 0;
  const get = async (path: string): Promise<AsyncIterable<Uint8Array>> => {
    const attempt = (attempts.get(path) ?? 0) + 1;
    attempts.set(path, attempt);
    const body = await serve(path, attempt);
    return (async function* () {
      most = Math.max(most, ++open);
      try {
        yield* body;
      } finally {
        open -= 1;
      }
    })();
  };
  const done = fetchTiles(tiles, get, store, (bytes, total) => progress.push([bytes, total]), signal);
  const error = await done.then(
    () => null,
    (e: unknown) => e as PotluckError,
  );
  return { store, progress, attempts, error, most: () => most };
}

describe('fetchTiles', () => {
  it('fetches all, two at a time, and reports bytes', async () => {
    const { store, progress, error, most } = await run(path => parts(content.get(path)!));
    expect(error).toBeNull();
    expect([...store.have.keys()].sort()).toEqual(tiles.map(t => t.hash).sort());
    for (const [hash, bytes] of store.have) expect(hashOf(bytes)).toBe(hash);
    const total = tiles.reduce((s, t) => s + t.bytes, 0);
    expect(progress.at(-1)).toEqual([total, total]);
    expect(most()).toBe(2);
    expect(store.confirms).toBe(1);
  });

  it('tries a broken transfer again, and counts its bytes once', async () => {
    const { store, progress, error } = await run((path, attempt) => {
      const bytes = content.get(path)!;
      if (path.endsWith(tiles[1]!.hash) && attempt === 1) return parts(bytes.subarray(0, 5000));
      if (path.endsWith(tiles[2]!.hash) && attempt < 3) return Promise.reject(new Error('connection reset'));
      if (path.endsWith(tiles[3]!.hash) && attempt === 1) return parts(bytes.map(b => b ^ 1));
      return parts(bytes);
    });
    expect(error).toBeNull();
    expect(store.have.size).toBe(tiles.length);
    const [bytes, total] = progress.at(-1)!;
    expect(bytes).toBe(total);
  });

  it('gives up after three tries, naming the tile, and starts nothing more', async () => {
    const { store, attempts, error } = await run((path, _) => {
      const bytes = content.get(path)!;
      return path.endsWith(tiles[0]!.hash) ? parts(bytes.map(b => b ^ 1)) : parts(bytes);
    });
    expect(error?.code).toBe('TILE_CORRUPT');
    expect(error?.message).toContain(tiles[0]!.hash);
    expect(attempts.get(`/potluck/tile/${tiles[0]!.hash}`)).toBe(3);
    expect(store.have.has(tiles[0]!.hash)).toBe(false);
  });

  it('keeps what arrived where another tile did not', async () => {
    const { store, error } = await run(path =>
      path.endsWith(tiles[4]!.hash) ? Promise.reject(new Error('gone')) : parts(content.get(path)!),
    );
    expect(error?.code).toBe('DEVICE_LOST');
    expect([...store.have.keys()]).toEqual(expect.arrayContaining(tiles.slice(0, 3).map(t => t.hash)));
  });

  it('is not done where the disk does not keep the tiles', async () => {
    const { error } = await run(path => parts(content.get(path)!), undefined, new Store(true));
    expect(error?.code).toBe('DISK_WRITE');
  });

  it('does not take more bytes than the tile has', async () => {
    const { error } = await run(path => parts(new Uint8Array(content.get(path)!.length + 1)));
    expect(error?.code).toBe('DEVICE_LOST');
    expect(error?.message).toContain('longer');
  });

  it('refuses a tile that is too large before it asks', async () => {
    const large = [{ hash: 'a'.repeat(64), bytes: MAX_TILE_BYTES + 1 }];
    const never = () => Promise.reject(new Error('asked'));
    const signal = new AbortController().signal;
    await expect(fetchTiles(large, never, new Store(), () => undefined, signal)).rejects.toThrow(/over/);
  });

  it('stops when it is told to', async () => {
    const stop = new AbortController();
    const { error, store } = await run(path => {
      if (path.endsWith(tiles[1]!.hash)) stop.abort(new PotluckError('NOT_READY', 'another plan'));
      return parts(content.get(path)!);
    }, stop.signal);
    expect(error?.code).toBe('NOT_READY');
    expect(store.have.size).toBeLessThan(3);
  });
});
