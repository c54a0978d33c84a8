import { createHash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { fetchTiles } from '../cluster/tile-transfer.ts';
import { PotluckError } from '../errors/errors.ts';
import { readWholeFile, writeFully, writing } from '../pack/file-system.ts';
import type { Manifest } from '../pack/manifest.ts';
import { openPackFolder, type PackFolder } from '../pack/pack-folder.ts';
import { MANIFEST_BYTES, manifestId, PACK_FILE_BYTES, readManifest } from '../pack/read-manifest.ts';
import { TileCache } from '../pack/tile-cache.ts';

/** A model as far as this device has it: everything but the tiles is here. */
export interface LocalModel {
  readonly id: string;
  readonly manifest: Manifest;
  readonly manifestBytes: Uint8Array;
  /** Constants blob; float32, see constantsFloats. */
  readonly constants: ArrayBuffer;
  /** A file named in the manifest, or undefined. */
  readFile(name: string): Promise<Uint8Array | undefined>;
  /** Where tile `tile` lies on this disk; undefined where it does not. */
  locate(tile: number): { path: string; offset: number; bytes: number; crc32c: number } | undefined;
  /** tiles.bin of the whole pack: the embedding is in it. Null where only some tiles are here. */
  readonly packPath: string | null;
}

export type HttpGet = (path: string, signal: AbortSignal) => Promise<AsyncIterable<Uint8Array>>;

/** The name under which the constants blob is served and kept. */
export const CONSTANTS_FILE = 'constants.bin';

/** What this device has on disk: at most one whole pack, and the tiles it was sent. */
export class ModelStore {
  readonly pack: LocalModel | null;
  readonly cache: TileCache;
  readonly #folder: string;
  readonly #received = new Map<string, LocalModel>();

  private constructor(pack: LocalModel | null, cache: TileCache, folder: string) {
    this.pack = pack;
    this.cache = cache;
    this.#folder = folder;
  }

  static async open(
    model: string | 'none',
    dataFolder: string,
    crc32c: (bytes: Uint8Array, before: number) => number,
  ): Promise<ModelStore> {
    const pack = model === 'none' ? null : fromFolder(await openPackFolder(fs, model));
    const cache = await TileCache.open({ fileSystem: fs, folder: join(dataFolder, 'tiles'), crc32c });
    return new ModelStore(pack, cache, join(dataFolder, 'models'));
  }

  /** The model of that id, as far as it is here. */
  find(id: string): LocalModel | undefined {
    return this.pack?.id === id ? this.pack : this.#received.get(id);
  }

  /** Makes sure that everything of a model but its tiles is here. */
  async receive(id: string, get: HttpGet, signal: AbortSignal): Promise<LocalModel> {
    const known = this.find(id);
    if (known) return known;
    const folder = join(this.#folder, id);
    await writing(folder, () => fs.mkdir(folder, { recursive: true }));
    const file = (name: string, limit: number) => this.#keep(folder, id, name, limit, get, signal);
    const manifestBytes = await file('manifest.json', MANIFEST_BYTES);
    if (manifestId(manifestBytes) !== id) {
      await fs.rm(folder, { recursive: true, force: true });
      throw new PotluckError('PACK_INVALID', `The manifest that came for model ${id} is not that model's.`);
    }
    const manifest = readManifest(manifestBytes, join(folder, 'manifest.json'));
    const constants = await file(CONSTANTS_FILE, manifest.constants.bytes);
    await this.#check(folder, CONSTANTS_FILE, constants, manifest.constants.sha256);
    const files = new Map<string, Uint8Array>();
    for (const entry of manifest.files) {
      const bytes = await file(entry.name, Math.min(entry.bytes, PACK_FILE_BYTES));
      await this.#check(folder, entry.name, bytes, entry.sha256);
      files.set(entry.name, bytes);
    }
    const model: LocalModel = {
      id,
      manifest,
      manifestBytes,
      constants: new Uint8Array(constants).buffer,
      readFile: name => Promise.resolve(files.get(name)),
      locate: tile => this.cache.locate(manifest.tiles[tile]!.sha256),
      packPath: null,
    };
    this.#received.set(id, model);
    return model;
  }

  /** Fetches those of `tiles` that are not here. */
  async fetch(
    model: LocalModel,
    tiles: readonly number[],
    get: HttpGet,
    onProgress: (bytes: number, total: number) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const missing = new Map(
      tiles
        .filter(tile => model.locate(tile) === undefined)
        .map(tile => [model.manifest.tiles[tile]!.sha256, model.manifest.tiles[tile]!.bytes]),
    );
    const list = [...missing].map(([hash, bytes]) => ({ hash, bytes }));
    await fetchTiles(list, path => get(path, signal), this.cache, onProgress, signal);
  }

  close(): Promise<void> {
    return this.cache.close();
  }

  /** A file of a model: from this disk, or fetched and then kept. */
  async #keep(
    folder: string,
    id: string,
    name: string,
    limit: number,
    get: HttpGet,
    signal: AbortSignal,
  ): Promise<Uint8Array> {
    const path = join(folder, name);
    const kept = await readWholeFile(fs, path, limit);
    if (kept) return kept;
    const parts: Uint8Array[] = [];
    let bytes = 0;
    for await (const part of await get(`/potluck/pack/${id}/${name}`, signal)) {
      bytes += part.length;
      if (bytes > limit)
        throw new PotluckError('PROTOCOL', `${name} of model ${id} is longer than ${limit} bytes.`);
      parts.push(part);
    }
    const whole = Buffer.concat(parts);
    await writing(path, async () => {
      const out = await fs.open(`${path}.new`, 'w');
      try {
        await writeFully(out, path, whole, 0);
        await out.datasync();
      } finally {
        await out.close();
      }
      await fs.rename(`${path}.new`, path);
    });
    return whole;
  }

  async #check(folder: string, name: string, bytes: Uint8Array, sha256: string): Promise<void> {
    if (createHash('sha256').update(bytes).digest('hex') === sha256) return;
    await fs.rm(join(folder, name), { force: true });
    throw new PotluckError('PACK_INVALID', `${join(folder, name)}: does not have its hash; it was removed.`);
  }
}

function fromFolder(pack: PackFolder): LocalModel {
  const { tiles } = pack.manifest;
  return {
    id: pack.id,
    manifest: pack.manifest,
    manifestBytes: pack.manifestBytes,
    constants: pack.constants,
    readFile: name => pack.readFile(name),
    locate: tile => {
      const entry = tiles[tile];
      return (
        entry && { path: pack.tilesPath, offset: entry.offset, bytes: entry.bytes, crc32c: entry.crc32c }
      );
    },
    packPath: pack.tilesPath,
  };
}
