import { existsSync } from 'node:fs';
import * as fileSystem from 'node:fs/promises';
import { readdir, rename, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { isLockFile, releaseLock, takeLock } from '../daemon/process-lock.ts';
import { TIMERS } from '../daemon/timers.ts';
import { crc32c } from '../disk-io/crc32c.ts';
import { asPotluckError, PotluckError } from '../errors/errors.ts';
import { readWholeFile, writing } from '../pack/file-system.ts';
import type { Manifest } from '../pack/manifest.ts';
import { MANIFEST_BYTES, manifestId, packBytes, readManifest } from '../pack/read-manifest.ts';
import { TileCache } from '../pack/tile-cache.ts';
import { JOURNAL_BYTES, replayJournal } from '../pack/tile-cache-journal.ts';
import { downloadsFolder, modelsFolder } from './home-folder.ts';

/** A model of this machine, or a part of one. */
export interface InstalledModel {
  readonly name: string;
  /** Null where its manifest cannot be read; a received one has its id as the name of its folder. */
  readonly id: string | null;
  /**
   * 'built-in' comes along; 'pulled' lies in the models folder; 'received' is what a device got from others for its part of a plan;
   * 'unfinished' is a download that was interrupted, or a checkpoint that was kept.
   */
  readonly kind: 'built-in' | 'pulled' | 'received' | 'unfinished';
  /** Where it is; of a received one, the device's folder. */
  readonly folder: string;
  readonly weights: string | null;
  /** On disk. */
  readonly bytes: number;
  readonly tiles: { readonly here: number; readonly total: number } | null;
  /** 'owner/name@revision', where it was pulled. */
  readonly origin: string | null;
  /** What is wrong with it; null: nothing. */
  readonly problem: string | null;
}

/** The folders to look at. */
export interface ModelPlaces {
  /** See homeFolder. */
  readonly home: string;
  readonly builtIn: string;
}

/** The manifest of the pack of that name, or null where there is none. Rejects with PACK_INVALID or PACK_VERSION. */
export async function installedModel(models: string, name: string): Promise<Manifest | null> {
  return (await manifestIn(join(models, name)))?.manifest ?? null;
}

/** Every model of this machine. */
export async function listModels({ home, builtIn }: ModelPlaces): Promise<InstalledModel[]> {
  const models: InstalledModel[] = [];
  if (existsSync(builtIn)) models.push(await packAt(builtIn, 'built-in'));
  for (const name of await namesIn(modelsFolder(home)))
    if (!name.endsWith('.unfinished')) models.push(await packAt(join(modelsFolder(home), name), 'pulled'));
  for (const name of await namesIn(home))
    if (name.startsWith('device-')) models.push(...(await receivedBy(join(home, name))));
  for (const name of await namesIn(downloadsFolder(home)))
    if (!isLockFile(name, '.lock')) models.push(await downloadAt(join(downloadsFolder(home), name), name));
  return models;
}

/**
 * The folder of the pack that a user means: a path; or a name, repository or id (8 digits of it at least) of a model of this machine. Rejects
 * with PACK_NOT_FOUND where there is none.
 */
export async function findModelFolder(text: string, places: ModelPlaces): Promise<string> {
  if (existsSync(join(text, 'manifest.json'))) return resolve(text);
  const packs = (await listModels(places)).filter(({ kind }) => kind === 'pulled' || kind === 'built-in');
  const fits = (test: (model: InstalledModel) => boolean) => packs.find(test)?.folder;
  const lower = text.toLowerCase();
  const found =
    fits(({ name }) => name === text) ??
    fits(({ name }) => name.toLowerCase() === lower) ??
    fits(({ origin }) => origin !== null && [origin, origin.split('@')[0]].includes(text)) ??
    (text.length >= 8 ? fits(({ id }) => id?.startsWith(lower) ?? false) : undefined);
  if (found !== undefined) return found;
  const names = packs.map(({ name }) => name).join(', ');
  throw new PotluckError(
    'PACK_NOT_FOUND',
    `There is no model ${JSON.stringify(text.slice(0, 200))} here, and no pack at that path. Here are: ${names}. ` +
      'Get one with `potluck pull OWNER/NAME`, or make one with `potluck pack`',
  );
}

/** API ports of the devices that keep their data in this home, whether they run or not. */
export async function devicePorts(home: string): Promise<number[]> {
  return (await namesIn(home)).flatMap(name => {
    const port = Number(/^device-(\d{1,5})$/.exec(name)?.[1] ?? 0);
    return port >= 1 && port <= 65535 ? [port] : [];
  });
}

/** Removes models of that name: packs, parts that devices received, downloads. Resolves to what went. */
export async function removeModel(name: string, places: ModelPlaces): Promise<InstalledModel[]> {
  const all = (await listModels(places)).filter(model => model.name === name || model.id === name);
  const gone = all.filter(({ kind }) => kind !== 'built-in');
  if (gone.length === 0)
    throw new PotluckError(
      'PACK_NOT_FOUND',
      all.length > 0
        ? `${name} comes with Potluck and is not removed`
        : `There is no model ${JSON.stringify(name.slice(0, 200))} here; see \`potluck models\``,
    );
  for (const model of gone) {
    if (model.kind === 'received') await removeReceived(model);
    else await removeFolder(model.folder);
  }
  return gone;
}

/** Renamed first: what is half removed does not look like a model. */
async function removeFolder(folder: string): Promise<void> {
  const going = `${folder}.unfinished`;
  await writing(folder, async () => {
    await rm(going, { recursive: true, force: true });
    await rename(folder, going);
    await rm(going, { recursive: true, force: true });
  });
}

/**
 * Forgets the tiles that a device has of a model; those of one whose manifest is broken stay in the cache, which has a limit. Rejects with
 * DATA_FOLDER_IN_USE while its daemon runs.
 */
async function removeReceived({ folder, id, name, problem }: InstalledModel): Promise<void> {
  const lock = join(folder, 'lock');
  const owner = takeLock(lock);
  if (owner !== null)
    throw new PotluckError(
      'DATA_FOLDER_IN_USE',
      `${folder}: its daemon (process ${owner}) runs and may use ${name}. Stop it first`,
    );
  try {
    const own = join(folder, 'models', id!);
    const found = problem === null ? await manifestIn(own) : null;
    const cache = await TileCache.open({
      ...{ fileSystem, crc32c, now: TIMERS.now },
      folder: join(folder, 'tiles'),
    });
    try {
      await cache.remove(found?.manifest.tiles.map(tile => tile.sha256) ?? []);
    } finally {
      await cache.close();
    }
    await writing(own, () => rm(own, { recursive: true, force: true }));
  } finally {
    releaseLock(lock);
  }
}

async function packAt(folder: string, kind: 'built-in' | 'pulled'): Promise<InstalledModel> {
  const name = folder.split(/[\\/]/).at(-1)!;
  const model = { name, id: null, kind, folder, weights: null, bytes: 0, tiles: null, origin: null };
  try {
    const found = await manifestIn(folder);
    if (found === null) return { ...model, problem: 'there is no manifest.json' };
    const { manifest, id } = found;
    const total = manifest.tiles.length;
    return { ...model, ...factsOf(manifest, id), name, tiles: { here: total, total }, problem: null };
  } catch (error) {
    return { ...model, problem: asPotluckError(error).message };
  }
}

async function receivedBy(device: string): Promise<InstalledModel[]> {
  const models: InstalledModel[] = [];
  const names = await namesIn(join(device, 'models'));
  const hashes = names.length === 0 ? new Set<string>() : await cachedHashes(join(device, 'tiles'));
  for (const name of names) {
    const model = await receivedAt(device, name, hashes);
    if (model !== null) models.push(model);
  }
  return models;
}

/** The model of that id as far as a device has it; null where nothing came yet. `hashes`: of its tiles, or why they are not known. */
async function receivedAt(
  device: string,
  id: string,
  hashes: ReadonlySet<string> | PotluckError,
): Promise<InstalledModel | null> {
  const model = { name: id, id, kind: 'received' as const, folder: device, weights: null, origin: null };
  try {
    const found = await manifestIn(join(device, 'models', id));
    if (found === null) return null;
    const facts = { ...model, ...factsOf(found.manifest, id) };
    if (hashes instanceof PotluckError) return { ...facts, bytes: 0, tiles: null, problem: hashes.message };
    const { tiles } = found.manifest;
    const here = tiles.filter(tile => hashes.has(tile.sha256));
    return {
      ...facts,
      bytes: here.reduce((sum, tile) => sum + tile.bytes, 0),
      tiles: { here: here.length, total: tiles.length },
      problem: null,
    };
  } catch (error) {
    return { ...model, bytes: 0, tiles: null, problem: asPotluckError(error).message };
  }
}

async function downloadAt(folder: string, name: string): Promise<InstalledModel> {
  let bytes = 0;
  for (const file of await namesIn(folder)) bytes += (await fileSystem.stat(join(folder, file))).size;
  const origin = name.replaceAll('--', '/');
  return {
    name,
    id: null,
    kind: 'unfinished',
    folder,
    weights: null,
    bytes,
    tiles: null,
    origin,
    problem: null,
  };
}

function factsOf(manifest: Manifest, id: string) {
  const { repo, revision } = manifest.origin ?? {};
  return {
    name: manifest.name,
    id,
    weights: manifest.shape.weights as string,
    bytes: packBytes(manifest),
    origin: repo === undefined ? null : `${repo}@${revision}`,
  };
}

async function manifestIn(folder: string): Promise<{ manifest: Manifest; id: string } | null> {
  const path = join(folder, 'manifest.json');
  const bytes = await readWholeFile(fileSystem, path, MANIFEST_BYTES);
  return bytes === undefined ? null : { manifest: readManifest(bytes, path), id: manifestId(bytes) };
}

/** Reads the journal beside a daemon that may write it; why it cannot be read, where it cannot. */
async function cachedHashes(folder: string): Promise<Set<string> | PotluckError> {
  try {
    const bytes = await readWholeFile(fileSystem, join(folder, 'index.txt'), JOURNAL_BYTES);
    const { slots } = replayJournal(new TextDecoder('latin1').decode(bytes ?? new Uint8Array()), () => true);
    return new Set(slots.keys());
  } catch (error) {
    return asPotluckError(error);
  }
}

/** Names in a folder, sorted; none where it is missing. */
async function namesIn(folder: string): Promise<string[]> {
  try {
    return (await readdir(folder)).sort();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw new PotluckError('DISK_READ', `${folder} cannot be read: ${(error as Error).message}`, {
      cause: error,
    });
  }
}
