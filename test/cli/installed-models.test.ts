import * as fileSystem from 'node:fs/promises';
import { cp, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { modelsText } from '../../src/cli/commands/models-command.ts';
import { findModelFolder, listModels, removeModel } from '../../src/cli/installed-models.ts';
import { rememberedModel, rememberModel } from '../../src/cli/remembered-model.ts';
import { releaseLock, takeLock } from '../../src/daemon/process-lock.ts';
import { crc32c } from '../../src/disk-io/crc32c.ts';
import { readFully } from '../../src/pack/file-system.ts';
import { openPackFolder, type PackFolder } from '../../src/pack/pack-folder.ts';
import { TileCache } from '../../src/pack/tile-cache.ts';
import { writeCheckpoint } from '../model/small-checkpoint.ts';
import { packForTest } from './pack-for-test.ts';

let root: string;
let home: string;
/** A small pack in the place of the one that comes along. */
let builtIn: string;
let pack: PackFolder;
const places = () => ({ home, builtIn });

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'potluck-models-'));
  builtIn = join(root, 'potluck-36m');
  await writeCheckpoint(join(root, 'checkpoint'));
  await packForTest(join(root, 'checkpoint'), builtIn, 'potluck-36m');
  pack = await openPackFolder(fileSystem, builtIn);
});
afterAll(() => rm(root, { recursive: true }));
beforeEach(async () => {
  home = await mkdtemp(join(root, 'home-'));
});

/** A copy of the built-in pack, as one that was pulled. */
async function addPulled(name: string): Promise<void> {
  await cp(builtIn, join(home, 'models', name), { recursive: true });
}

/** A device that got two tiles of the built-in pack from another. */
async function addReceived(): Promise<string> {
  const device = join(home, 'device-11510');
  await mkdir(join(device, 'models', pack.id), { recursive: true });
  await writeFile(join(device, 'models', pack.id, 'manifest.json'), pack.manifestBytes);
  const cache = await TileCache.open({
    ...{ fileSystem, crc32c, now: () => 0 },
    folder: join(device, 'tiles'),
  });
  const data = await fileSystem.open(pack.tilesPath, 'r');
  for (const tile of pack.manifest.tiles.slice(0, 2)) {
    const bytes = new Uint8Array(tile.bytes);
    await readFully(data, pack.tilesPath, bytes, tile.offset);
    await cache.write(tile.sha256, bytes);
  }
  await cache.confirm([]);
  await data.close();
  await cache.close();
  return device;
}

test('lists what comes along, what was pulled, what devices received, and downloads', async () => {
  await addPulled('other');
  const device = await addReceived();
  await mkdir(join(home, 'models', 'broken'));
  await mkdir(join(home, 'downloads', 'home--tiny@main'), { recursive: true });
  await writeFile(join(home, 'downloads', 'home--tiny@main', 'model.safetensors.part'), 'abc');
  await writeFile(join(home, 'downloads', 'home--tiny@main.lock.1-2'), '');
  const models = await listModels(places());
  const total = pack.manifest.tiles.length;
  expect(models).toMatchObject([
    { name: 'potluck-36m', id: pack.id, kind: 'built-in', weights: 'w4', tiles: { here: total, total } },
    { name: 'broken', id: null, kind: 'pulled', problem: expect.stringMatching(/manifest/) },
    { name: 'other', id: pack.id, kind: 'pulled', problem: null },
    { name: 'potluck-36m', kind: 'received', folder: device, tiles: { here: 2, total } },
    { name: 'home--tiny@main', kind: 'unfinished', bytes: 3, origin: 'home/tiny@main' },
  ]);
  expect(models[3]!.bytes).toBe(pack.manifest.tiles[0]!.bytes + pack.manifest.tiles[1]!.bytes);
  const text = modelsText(models.map((model, i) => ({ ...model, served: i === 0 })));
  expect(text.split('\n')[1]).toMatch(/^potluck-36m +[0-9a-f]{16} .* w4 .* built-in +yes +/);
  expect(text).toMatch(/^broken: there is no manifest.json$/m);
});

test('a broken model that a device received is named, hides no other, and can be removed', async () => {
  const device = await addReceived();
  const broken = 'ab'.repeat(8);
  await mkdir(join(device, 'models', broken));
  await writeFile(join(device, 'models', broken, 'manifest.json'), '{"hello": 1}');
  const received = async () => (await listModels(places())).filter(({ kind }) => kind === 'received');
  expect(await received()).toMatchObject(
    [
      { name: 'potluck-36m', id: pack.id, problem: null },
      { name: broken, id: broken, tiles: null, problem: expect.stringContaining('manifest.json') },
    ].sort((a, b) => (a.id < b.id ? -1 : 1)),
  );
  expect(await findModelFolder('potluck-36m', places())).toBe(builtIn);
  expect(await removeModel(broken, places())).toMatchObject([{ kind: 'received' }]);
  expect(await received()).toMatchObject([{ name: 'potluck-36m', tiles: { here: 2 } }]);
  await rm(join(device, 'tiles', 'index.txt'));
  await mkdir(join(device, 'tiles', 'index.txt'));
  expect(await received()).toMatchObject([
    { name: 'potluck-36m', problem: expect.stringContaining('index.txt') },
  ]);
});

test('a model is found by path, name, id and repository', async () => {
  await addPulled('Qwen3-0.6B');
  const folder = join(home, 'models', 'Qwen3-0.6B');
  for (const text of ['Qwen3-0.6B', 'qwen3-0.6b', folder])
    expect(await findModelFolder(text, places())).toBe(folder);
  for (const text of ['potluck-36m', pack.id, pack.id.slice(0, 8), builtIn])
    expect(await findModelFolder(text, places())).toBe(builtIn);
  await expect(findModelFolder('qwen', places())).rejects.toMatchObject({
    code: 'PACK_NOT_FOUND',
    message: expect.stringMatching(/potluck-36m, Qwen3-0.6B.*potluck pull/),
  });
});

test('removes a pulled pack and what devices received; the one that comes along stays', async () => {
  await addPulled('other');
  expect(await removeModel('other', places())).toMatchObject([{ kind: 'pulled' }]);
  expect(await readdir(join(home, 'models'))).toEqual([]);
  const device = await addReceived();
  expect(takeLock(join(device, 'lock'))).toBeNull();
  await expect(removeModel('potluck-36m', places())).rejects.toMatchObject({ code: 'DATA_FOLDER_IN_USE' });
  releaseLock(join(device, 'lock'));
  expect(await removeModel('potluck-36m', places())).toMatchObject([{ kind: 'received' }]);
  const cache = await TileCache.open({
    ...{ fileSystem, crc32c, now: () => 0 },
    folder: join(device, 'tiles'),
  });
  expect(cache.hashes()).toEqual([]);
  await cache.close();
  await expect(removeModel('potluck-36m', places())).rejects.toThrow(/comes with Potluck/);
  await expect(removeModel('nothing', places())).rejects.toThrow(/no model "nothing"/);
});

test('the model of the last start is kept in the data folder', () => {
  const folder = join(home, 'device-1');
  expect(rememberedModel(folder)).toBeNull();
  rememberModel(folder, 'none');
  rememberModel(folder, '/models/x');
  expect(rememberedModel(folder)).toBe('/models/x');
});
