import { createHash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { checkPlan, type Plan, tilesOf } from '../cluster/plan.ts';
import { fetchTiles } from '../cluster/tile-transfer.ts';
import { asPotluckError, PotluckError } from '../errors/errors.ts';
import {
  describeError,
  errorNumber,
  makeFolder,
  readWholeFile,
  writeFully,
  writing,
} from '../pack/file-system.ts';
import { EMBEDDING_CHECKS_FILE, type Manifest } from '../pack/manifest.ts';
import { openPackFolder, type PackFolder } from '../pack/pack-folder.ts';
import { PlanTiles } from '../pack/plan-tiles.ts';
import { MANIFEST_BYTES, manifestId, PACK_FILE_BYTES, readManifest } from '../pack/read-manifest.ts';
import { TileCache } from '../pack/tile-cache.ts';
import { given, mebibytes } from './memory-account.ts';
import { TIMERS } from './timers.ts';

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
  /** Which tile has that hash; undefined where none has. */
  tileOf(sha256: string): number | undefined;
  /** tiles.bin of the whole pack, where the embedding is, and the checksums of its rows. Null where only some tiles are here. */
  readonly whole: { readonly path: string; embeddingChecks(): Promise<Uint8Array> } | null;
}

export type HttpGet = (path: string, signal: AbortSignal) => Promise<AsyncIterable<Uint8Array>>;

/** Most packs that are offered; a device's description holds no more. */
const MOST_PACKS = 64;
/** Most models of other devices whose constants and tokenizer are in memory; a further one is read from disk again. */
const MOST_RECEIVED = 4;
/** Before a pack that could not be opened is looked at again. */
const RETRY_MILLISECONDS = 5000;
/** The name under which the constants blob is served and kept. */
export const CONSTANTS_FILE = 'constants.bin';

/** Where packs are looked for, and what of the disk may be used. */
export interface PackPlaces {
  /** Most bytes of tiles that came from other devices; null: as many as the disk holds. */
  readonly diskBytes: number | null;
  /** Folder of the pack that is served unless another model is asked for; 'none': no pack is offered. */
  readonly model: string | 'none';
  /** Folder of further packs, each in a folder of its own; null: none. */
  readonly modelsFolder: string | null;
}

/** What this device has on disk: whole packs, and the tiles it was sent. */
export class ModelStore {
  readonly cache: TileCache;
  readonly #places: PackPlaces;
  readonly #folder: string;
  /** By the folder they are in; the first is the one that is served unless another is asked for. */
  readonly #packs: Map<string, LocalModel>;
  /** What the manifest's file of each folder was when its pack was opened. */
  readonly #stamps = new Map<string, string>();
  /** By id; the last one is the one that was asked for last. */
  readonly #received = new Map<string, LocalModel>();
  /** Models that are being received. */
  readonly #receiving = new Map<string, Promise<LocalModel>>();
  /** Tiles of packs whose bytes here are lost or wrong, by hash: the cache has others. */
  readonly #lost = new Set<string>();
  readonly #planTiles = new PlanTiles();
  /** Tiles of the plan in use. */
  #inUse: ReadonlySet<string> = new Set();
  /** Ids of the model of the plan in use, and of the one that is prepared. */
  #usedModel: string | null = null;
  #preparedModel: string | null = null;
  /** Packs that could not be opened, why, and when: one that is just being copied is whole later. */
  readonly #broken = new Map<string, { readonly message: string; readonly at: number }>();

  private constructor(places: PackPlaces, packs: Map<string, LocalModel>, cache: TileCache, folder: string) {
    this.#places = places;
    this.#packs = packs;
    this.cache = cache;
    this.#folder = folder;
  }

  /** Rejects where the model's own pack cannot be opened; see openPackFolder. */
  static async open(
    places: PackPlaces,
    dataFolder: string,
    crc32c: (bytes: Uint8Array, before: number) => number,
  ): Promise<ModelStore> {
    const { model } = places;
    const packs = new Map<string, LocalModel>();
    const folder = join(dataFolder, 'tiles');
    const cache = await TileCache.open({ fileSystem: fs, folder, crc32c, now: TIMERS.now });
    const store = new ModelStore(places, packs, cache, join(dataFolder, 'models'));
    try {
      if (model !== 'none') await store.#openPack(resolve(model), await stampOf(model));
    } catch (error) {
      await cache.close();
      throw error;
    }
    await store.look();
    return store;
  }

  /** Whole packs; the first is the one that is served unless another is asked for. Each model once. */
  get packs(): readonly LocalModel[] {
    const all = [...this.#packs.values()];
    return all.filter(({ id }, i) => all.findIndex(other => other.id === id) === i).slice(0, MOST_PACKS);
  }

  /** Packs of the models folder that cannot be used, and why; one sentence each. */
  get notes(): readonly string[] {
    return [...this.#broken.values()].map(({ message }) => message);
  }

  /** Looks for packs that came, went or were replaced since the last look; true where there are others now. */
  async look(): Promise<boolean> {
    const { model, modelsFolder } = this.#places;
    if (modelsFolder === null || model === 'none') return false;
    const names = (await namesIn(modelsFolder)).filter(name => !name.endsWith('.unfinished'));
    const folders = new Set(names.map(name => resolve(modelsFolder, name)));
    let changed = false;
    for (const folder of [...this.#broken.keys()]) if (!folders.has(folder)) this.#broken.delete(folder);
    for (const folder of [...this.#packs.keys()])
      if (folder !== resolve(model) && !folders.has(folder)) changed = this.#drop(folder) || changed;
    for (const folder of folders) {
      const failedAt = this.#broken.get(folder)?.at ?? Number.NEGATIVE_INFINITY;
      const stamp = await stampOf(folder);
      if (this.#packs.has(folder) && this.#stamps.get(folder) === stamp) continue;
      if (TIMERS.now() - failedAt < RETRY_MILLISECONDS) continue;
      try {
        await this.#openPack(folder, stamp);
        this.#broken.delete(folder);
        changed = true;
      } catch (error) {
        changed = this.#drop(folder) || changed;
        const { code, message } = asPotluckError(error);
        // just removed, or no pack at all
        if (code !== 'PACK_NOT_FOUND') this.#broken.set(folder, { message, at: TIMERS.now() });
      }
    }
    return changed;
  }

  async #openPack(folder: string, stamp: string): Promise<void> {
    this.#packs.set(folder, this.#fromFolder(await openPackFolder(fs, folder)));
    this.#stamps.set(folder, stamp);
  }

  /** False where there was none. */
  #drop(folder: string): boolean {
    this.#stamps.delete(folder);
    return this.#packs.delete(folder);
  }

  /** The model of that id, as far as it is here. */
  find(id: string): LocalModel | undefined {
    const pack = this.packs.find(each => each.id === id);
    const received = this.#received.get(id);
    if (pack !== undefined || received === undefined) return pack;
    this.#received.delete(id);
    this.#received.set(id, received);
    return received;
  }

  /** Where a tile lies, of whatever model. */
  locate(sha256: string): { path: string; offset: number; bytes: number; crc32c: number } | undefined {
    const cached = this.cache.locate(sha256);
    if (cached) return cached;
    for (const pack of this.#packs.values()) {
      const tile = pack.tileOf(sha256);
      if (tile !== undefined) return pack.locate(tile);
    }
    return undefined;
  }

  /** Makes sure that everything of a model but its tiles is here. */
  async receive(id: string, get: HttpGet, signal: AbortSignal): Promise<LocalModel> {
    for (;;) {
      const known = this.find(id);
      if (known) return known;
      const underWay = this.#receiving.get(id);
      if (underWay === undefined) break;
      // whoever began it may have been told to stop: then it is tried again, here
      await underWay.catch(() => undefined);
      signal.throwIfAborted();
    }
    const receiving = this.#receive(id, get, signal).finally(() => this.#receiving.delete(id));
    this.#receiving.set(id, receiving);
    return receiving;
  }

  async #receive(id: string, get: HttpGet, signal: AbortSignal): Promise<LocalModel> {
    const folder = join(this.#folder, id);
    await writing(folder, () => makeFolder(fs, folder));
    const file = (name: string, limit: number, isRight: (bytes: Uint8Array) => boolean) =>
      this.#keep(folder, id, name, limit, isRight, get, signal);
    const manifestBytes = await file('manifest.json', MANIFEST_BYTES, bytes => manifestId(bytes) === id);
    const manifest = readManifest(manifestBytes, join(folder, 'manifest.json'));
    const constants = await file(
      CONSTANTS_FILE,
      manifest.constants.bytes,
      hasHash(manifest.constants.sha256),
    );
    const files = new Map<string, Uint8Array>();
    for (const entry of manifest.files) {
      // only who has the whole pack reads embedding rows
      if (entry.name === EMBEDDING_CHECKS_FILE) continue;
      const limit = Math.min(entry.bytes, PACK_FILE_BYTES);
      files.set(entry.name, await file(entry.name, limit, hasHash(entry.sha256)));
    }
    const model: LocalModel = {
      id,
      manifest,
      manifestBytes,
      constants: new Uint8Array(constants).buffer,
      readFile: name => Promise.resolve(files.get(name)),
      locate: tile => this.cache.locate(manifest.tiles[tile]!.sha256),
      tileOf: tileFinder(manifest),
      whole: null,
    };
    this.#received.set(id, model);
    this.#forgetReceived();
    return model;
  }

  /** Those that were asked for longest ago go out of memory. */
  #forgetReceived(): void {
    for (const id of [...this.#received.keys()]) {
      if (this.#received.size <= MOST_RECEIVED) return;
      if (id !== this.#usedModel && id !== this.#preparedModel) this.#received.delete(id);
    }
  }

  /**
   * Fetches from the hub what device `index` of `plan` needs and is not here. Rejects with PROTOCOL where the plan is not for the tiles of its model.
   */
  async prepare(
    plan: Plan,
    index: number,
    get: HttpGet,
    onProgress: (bytes: number, total: number) => void,
    signal: AbortSignal,
  ): Promise<void> {
    this.#preparedModel = plan.modelId;
    const model = await this.receive(plan.modelId, get, signal);
    checkPlan(plan, model.manifest.tiles);
    await this.#fetch(model, tilesOf(plan, index), get, onProgress, signal);
  }

  /** Fetches those of `tiles` that are not here. */
  async #fetch(
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
    const wanted = tiles.map(tile => model.manifest.tiles[tile]!.sha256);
    await this.#makeRoom(wanted, sumOf(list));
    this.#planTiles.use(planKey(model.id, wanted), wanted);
    await fetchTiles(list, path => get(path, signal), this.cache, onProgress, signal);
  }

  /** These tiles of a model are in use from now on: none of them makes room for others. */
  use(model: LocalModel, tiles: readonly number[]): void {
    const hashes = tiles.map(tile => model.manifest.tiles[tile]!.sha256);
    this.#inUse = new Set(hashes);
    this.#usedModel = model.id;
    this.#planTiles.use(planKey(model.id, hashes), hashes);
  }

  /** Fetches a tile whose bytes here are lost or wrong; `locate` then finds it in the cache. */
  async refetch(model: LocalModel, tile: number, get: HttpGet, signal: AbortSignal): Promise<void> {
    const { sha256: hash, bytes } = model.manifest.tiles[tile]!;
    await this.cache.remove([hash], true);
    await fetchTiles(
      [{ hash, bytes }],
      path => get(`${path}/own`, signal),
      this.cache,
      () => undefined,
      signal,
    );
    this.#lost.add(hash);
  }

  /** Removes tiles of plans used longest ago until `bytes` more fit. Rejects with DISK_WRITE where they cannot. */
  async #makeRoom(wanted: readonly string[], bytes: number): Promise<void> {
    const limit = this.#places.diskBytes;
    const over = limit === null ? 0 : this.cache.bytes + bytes - limit;
    if (over <= 0) return;
    const victims = this.#planTiles.victims(this.cache.sizes(), over, new Set([...wanted, ...this.#inUse]));
    if (victims.bytes < over)
      throw new PotluckError(
        'DISK_WRITE',
        `--disk ${given(limit!)} is too small: this device's tiles take ${mebibytes(limit! + over - victims.bytes)}. Give it more of the disk.`,
      );
    await this.cache.remove(victims.hashes);
  }

  close(): Promise<void> {
    return this.cache.close();
  }

  #fromFolder(pack: PackFolder): LocalModel {
    const { tiles } = pack.manifest;
    return {
      id: pack.id,
      manifest: pack.manifest,
      manifestBytes: pack.manifestBytes,
      constants: pack.constants,
      readFile: name => pack.readFile(name),
      locate: tile => {
        const entry = tiles[tile];
        if (entry && this.#lost.has(entry.sha256)) return this.cache.locate(entry.sha256);
        return (
          entry && { path: pack.tilesPath, offset: entry.offset, bytes: entry.bytes, crc32c: entry.crc32c }
        );
      },
      tileOf: tileFinder(pack.manifest),
      whole: { path: pack.tilesPath, embeddingChecks: pack.embeddingChecks },
    };
  }

  /** A file of a model: from this disk, or fetched and then kept. Rejects with PACK_INVALID where the one that came is not right either. */
  async #keep(
    folder: string,
    id: string,
    name: string,
    limit: number,
    isRight: (bytes: Uint8Array) => boolean,
    get: HttpGet,
    signal: AbortSignal,
  ): Promise<Uint8Array> {
    const path = join(folder, name);
    const kept = await readWholeFile(fs, path, limit);
    if (kept && isRight(kept)) return kept;
    const parts: Uint8Array[] = [];
    let bytes = 0;
    for await (const part of await get(`/potluck/pack/${id}/${name}`, signal)) {
      bytes += part.length;
      if (bytes > limit)
        throw new PotluckError('PROTOCOL', `${name} of model ${id} is longer than ${limit} bytes.`);
      parts.push(part);
    }
    const whole = Buffer.concat(parts);
    if (!isRight(whole))
      throw new PotluckError('PACK_INVALID', `The ${name} that came for model ${id} is not that model's.`);
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
}

const hasHash = (sha256: string) => (bytes: Uint8Array) =>
  createHash('sha256').update(bytes).digest('hex') === sha256;

const sumOf = (tiles: readonly { readonly bytes: number }[]): number =>
  tiles.reduce((sum, { bytes }) => sum + bytes, 0);

/** Names a device's part of a plan, whatever its number: the same part again is the same plan. */
const planKey = (modelId: string, hashes: readonly string[]): string =>
  `${modelId} ${createHash('sha256').update(hashes.join()).digest('hex')}`;

/** Finds tiles by their hash; its index is made at the first call. */
function tileFinder({ tiles }: Manifest): (sha256: string) => number | undefined {
  let index: Map<string, number> | null = null;
  return sha256 => {
    index ??= new Map(tiles.map((tile, i) => [tile.sha256, i]));
    return index.get(sha256);
  };
}

/** Another one where a pack's manifest was replaced. Why there is none is said by whoever opens the pack. */
async function stampOf(folder: string): Promise<string> {
  const found = await fs.stat(join(folder, 'manifest.json')).catch(() => null);
  return found === null ? 'none' : `${found.ino} ${found.size} ${found.mtimeMs}`;
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return (await fs.readdir(folder)).sort();
  } catch (error) {
    if (errorNumber(error) === 'ENOENT') return [];
    throw new PotluckError('DISK_READ', `${folder}: ${describeError(error)}`, { cause: error });
  }
}
