import { cp, mkdir, mkdtemp, readdir, readFile, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { CONSTANTS_FILE, type HttpGet, ModelStore } from '../../src/daemon/model-store.ts';
import { tileReaders } from '../../src/daemon/tile-readers.ts';
import { crc32c } from '../../src/disk-io/crc32c.ts';
import { manifestId } from '../../src/pack/read-manifest.ts';
import { packForTest } from '../cli/pack-for-test.ts';
import { SMALL, writeCheckpoint } from '../model/small-checkpoint.ts';

let root: string;
let folder: string;
let store: ModelStore | null = null;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'potluck-store-'));
  for (const [name, layers] of [
    ['alder', 1],
    ['birch', 2],
  ] as const) {
    const checkpoint = join(root, `${name}-checkpoint`);
    await writeCheckpoint(checkpoint, { ...SMALL, num_hidden_layers: layers });
    await packForTest(checkpoint, join(root, name), name);
  }
});
afterAll(() => rm(root, { recursive: true }));
beforeEach(async () => {
  folder = await mkdtemp(join(root, 'models-'));
});
afterEach(async () => {
  await store?.close();
  store = null;
});

async function open(model: string): Promise<ModelStore> {
  store = await ModelStore.open(
    { model, modelsFolder: folder, diskBytes: null },
    await mkdtemp(join(root, 'data-')),
    crc32c,
  );
  return store;
}

const names = (of: ModelStore) => of.packs.map(({ manifest }) => manifest.name);
const add = (name: string, as = name) => cp(join(root, name), join(folder, as), { recursive: true });

test('a pack that was replaced in its folder is opened anew, and one that was replaced by a broken one is gone', async () => {
  const opened = await open(join(root, 'alder'));
  await add('alder', 'one');
  expect(await opened.look()).toBe(true);
  await rm(join(folder, 'one'), { recursive: true });
  await add('birch', 'one');
  expect(await opened.look()).toBe(true);
  expect(names(opened)).toEqual(['alder', 'birch']);
  expect(await opened.look()).toBe(false);
  await writeFile(join(folder, 'one', 'manifest.json'), '{}');
  expect(await opened.look()).toBe(true);
  expect(names(opened)).toEqual(['alder']);
  expect(opened.notes).toEqual([expect.stringContaining('manifest.json')]);
});

test("the model's own pack is first; packs of the folder come and go", async () => {
  const alder = join(root, 'alder');
  const opened = await open(alder);
  expect(names(opened)).toEqual(['alder']);
  await add('birch');
  expect(await opened.look()).toBe(true);
  expect(names(opened)).toEqual(['alder', 'birch']);
  expect(await opened.look()).toBe(false);
  const [, birch] = opened.packs;
  expect(opened.find(birch!.id)).toBe(birch);
  const tile = birch!.manifest.tiles.at(-1)!;
  expect(opened.locate(tile.sha256)).toMatchObject({ path: birch!.whole!.path, offset: tile.offset });
  await rm(join(folder, 'birch'), { recursive: true });
  expect(await opened.look()).toBe(true);
  expect(names(opened)).toEqual(['alder']);
  expect(opened.locate(tile.sha256)).toBeUndefined();
});

test('a copy of a model that is there is no further model', async () => {
  await add('alder', 'copy');
  await add('birch', 'birch.unfinished');
  await mkdir(join(folder, 'empty'));
  expect(names(await open(join(root, 'alder')))).toEqual(['alder']);
  expect(store!.notes).toEqual([]);
});

test('a broken pack is told and left out until it goes', async () => {
  await add('birch');
  await truncate(join(folder, 'birch', 'tiles.bin'), 100);
  const opened = await open(join(root, 'alder'));
  expect(names(opened)).toEqual(['alder']);
  expect(opened.notes).toEqual([expect.stringMatching(/birch.*truncated/)]);
  await rename(join(folder, 'birch'), join(root, 'gone'));
  await opened.look();
  expect(opened.notes).toEqual([]);
});

test("with 'none' no pack is offered", async () => {
  await add('birch');
  expect(names(await open('none'))).toEqual([]);
  expect(await store!.look()).toBe(false);
});

test('a file of a received model that is damaged on disk is fetched again, and a wrong one that comes is not kept', async () => {
  const { id } = (await open(join(root, 'alder'))).packs[0]!;
  const { readPackFile } = tileReaders({ store: store!, crc32c, repair: () => Promise.reject(new Error()) });
  const data = await mkdtemp(join(root, 'data-'));
  const asked: string[] = [];
  const receive = async (change: (bytes: Uint8Array) => void = () => undefined) => {
    asked.length = 0;
    const receiver = await ModelStore.open(
      { model: 'none', modelsFolder: null, diskBytes: null },
      data,
      crc32c,
    );
    const get = async (path: string) => {
      const name = path.split('/').at(-1)!;
      asked.push(name);
      const bytes = new Uint8Array((await readPackFile(id, name))!);
      change(bytes);
      return (async function* () {
        yield bytes;
      })();
    };
    await receiver.receive(id, get, new AbortController().signal).finally(() => receiver.close());
  };
  await receive();
  const names = await readdir(join(data, 'models', id));
  expect([...asked].sort()).toEqual(names.sort());
  await receive();
  expect(asked).toEqual([]);
  for (const name of names) {
    const path = join(data, 'models', id, name);
    const whole = await readFile(path);
    const flipped = Buffer.from(whole);
    flipped[flipped.length >> 1]! ^= 1;
    await writeFile(path, flipped);
    await expect(receive(bytes => bytes.set([bytes[0]! ^ 1]))).rejects.toMatchObject({
      code: 'PACK_INVALID',
      message: expect.stringContaining(name),
    });
    expect(await readFile(path)).toEqual(flipped);
    await receive();
    expect(asked).toEqual([name]);
    expect(await readFile(path)).toEqual(whole);
  }
});

test('a plan of more or fewer tiles than its model has is not prepared', async () => {
  const alder = (await open(join(root, 'alder'))).packs[0]!;
  const device = { id: '0'.repeat(32), name: 'hub', host: '', linkPort: 1 };
  const prepare = (tiles: number) =>
    store!.prepare(
      {
        ...{ epoch: 1, modelId: alder.id, hubId: device.id, devices: [device] },
        assignment: Array.from({ length: tiles }, () => 0),
      },
      0,
      () => Promise.reject(new Error('nothing is to be fetched')),
      () => undefined,
      new AbortController().signal,
    );
  const { length } = alder.manifest.tiles;
  await prepare(length);
  await expect(prepare(length + 1)).rejects.toMatchObject({ code: 'PROTOCOL' });
  await expect(prepare(length - 1)).rejects.toMatchObject({ code: 'PROTOCOL' });
});

test('of models of other devices few are in memory: that in use, that which is prepared, the last ones; others come from disk', async () => {
  const alder = (await open(join(root, 'alder'))).packs[0]!;
  const fetched: string[] = [];
  // the same model under other names has other ids
  const manifests = new Map(
    Array.from({ length: 6 }, (_, i) => {
      const bytes = Buffer.from(
        JSON.stringify({ ...JSON.parse(Buffer.from(alder.manifestBytes).toString()), name: `m${i}` }),
      );
      return [manifestId(bytes), bytes];
    }),
  );
  const get: HttpGet = async path => {
    fetched.push(path);
    const [id, name] = path.split('/').slice(-2) as [string, string];
    const bytes =
      name === 'manifest.json'
        ? manifests.get(id)!
        : name === CONSTANTS_FILE
          ? new Uint8Array(alder.constants)
          : (await alder.readFile(name))!;
    return Readable.from([bytes]);
  };
  const { signal } = new AbortController();
  const ids = [...manifests.keys()];
  const receive = (n: number) => store!.receive(ids[n]!, get, signal);
  store!.use(await receive(0), []);
  const device = { id: '0'.repeat(32), name: 'hub', host: '', linkPort: 1 };
  const short = { epoch: 1, modelId: ids[1]!, hubId: device.id, devices: [device], assignment: [] };
  await expect(store!.prepare(short, 0, get, () => undefined, signal)).rejects.toMatchObject({
    code: 'PROTOCOL',
  });
  for (const n of [2, 3, 4]) await receive(n);
  expect(store!.find(ids[3]!)).toBeDefined();
  await receive(5);
  const here = ids.filter(id => store!.find(id) !== undefined);
  expect(here.map(id => store!.find(id)!.manifest.name)).toEqual(['m0', 'm1', 'm3', 'm5']);
  const { length } = fetched;
  expect((await receive(2)).manifest.name).toBe('m2');
  expect(fetched).toHaveLength(length);
});
