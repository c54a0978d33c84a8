import { cp, open, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { fetchStatus, generate } from '../../src/cli/api-client.ts';
import { ChildDaemon } from '../../src/cli/emulate/child-daemon.ts';
import type { Emulation } from '../../src/cli/emulate/emulation.ts';
import { startEmulation } from '../../src/cli/emulate/emulation.ts';
import { builtInModel } from '../../src/cli/project.ts';
import { readManifest } from '../../src/pack/read-manifest.ts';
import { temporaryFolder } from '../pack/temporary-folder.ts';
import { emulated, promptTokens } from './emulated.ts';

const ask = async (emulation: Emulation): Promise<readonly number[]> =>
  (await generate(await emulation.hubUrl(), promptTokens(20), 12, [])).tokens;

/** Folder that a daemon keeps its things in. */
async function dataFolder(pid: number): Promise<string> {
  const args = (await readFile(`/proc/${pid}/cmdline`, 'utf8')).split('\0');
  return args[args.indexOf('--data') + 1]!;
}

/** The built-in pack in a folder of its own. */
async function copyOfModel(): Promise<string> {
  const folder = await temporaryFolder();
  await cp(builtInModel(), folder, { recursive: true });
  return folder;
}

/** Flips a bit in every 64 KiB of a file, or in every `step` bytes from `start` to `end`. */
async function damage(path: string, step = 64 << 10, start = 1000, end = Infinity): Promise<void> {
  const file = await open(path, 'r+');
  try {
    const { size } = await file.stat();
    const one = Buffer.alloc(1);
    for (let at = start; at < Math.min(size, end); at += step) {
      await file.read(one, 0, 1, at);
      one[0]! ^= 8;
      await file.write(one, 0, 1, at);
    }
    await file.datasync();
  } finally {
    await file.close();
  }
}

test.skipIf(process.platform !== 'linux')(
  'tiles that are damaged, cut off or deleted under a running spoke come from the hub again, with the same answer',
  { timeout: 90_000 },
  () =>
    emulated({ devices: 2, window: 2 << 20 }, async emulation => {
      const answer = await ask(emulation);
      const spoke = emulation.devices[1]!;
      const tiles = join(await dataFolder(spoke.pid), 'tiles', 'tiles.bin');
      const recovered = async (): Promise<number> => {
        const { devices, device } = await emulation.status(1);
        return devices.find(({ id }) => id === device.id)!.window!.recovered;
      };
      await damage(tiles);
      expect(await ask(emulation)).toEqual(answer);
      const damaged = await recovered();
      expect(damaged).toBeGreaterThan(0);
      await truncate(tiles, 100_000);
      expect(await ask(emulation)).toEqual(answer);
      const cut = await recovered();
      expect(cut).toBeGreaterThan(damaged);
      await rm(tiles);
      expect(await ask(emulation)).toEqual(answer);
      expect(await ask(emulation)).toEqual(answer);
    }),
);

test('a pack damaged under a device alone is a clear error to the request, and no more once it is mended', {
  timeout: 60_000,
}, async () => {
  const model = await copyOfModel();
  const tiles = join(model, 'tiles.bin');
  const emulation = await startEmulation({
    model,
    devices: 1,
    threads: 1,
    window: 2 << 20,
    deadline: 60_000,
  });
  onTestFinished(() => emulation.stop());
  const answer = await ask(emulation);
  const whole = await readFile(tiles);
  await damage(tiles);
  await expect(ask(emulation)).rejects.toMatchObject({ code: 'TILE_CORRUPT' });
  await truncate(tiles, whole.length >> 1);
  await expect(ask(emulation)).rejects.toThrow(/tile \d+|ends/i);
  await writeFile(tiles, whole);
  expect(await ask(emulation)).toEqual(answer);
  expect((await emulation.status(0)).state).toBe('serving');
});

test('embedding rows damaged under a device are a clear error to the request, and no more once they are mended', {
  timeout: 60_000,
}, async () => {
  const model = await copyOfModel();
  const { embedding } = readManifest(await readFile(join(model, 'manifest.json')), 'manifest.json');
  const emulation = await startEmulation({ model, devices: 1, threads: 1, deadline: 60_000 });
  onTestFinished(() => emulation.stop());
  const flip = () =>
    damage(
      join(model, 'tiles.bin'),
      embedding.rowBytes,
      embedding.offset + 77,
      embedding.offset + embedding.bytes,
    );
  await flip();
  await expect(ask(emulation)).rejects.toMatchObject({
    code: 'TILE_CORRUPT',
    message: expect.stringContaining('Embedding row'),
  });
  await flip();
  expect(await ask(emulation)).toHaveLength(12);
  expect((await emulation.status(0)).state).toBe('serving');
});

/** Starts daemons that know the first one; resolves to the address of its API. Ended when the test is. */
async function startDaemons(cluster: string) {
  const folder = await temporaryFolder();
  const started: ChildDaemon[] = [];
  onTestFinished(async () => {
    await Promise.all(started.map(daemon => daemon.stop()));
  });
  return async (name: string, model: string) => {
    const [peer] = started;
    const args = [
      ...['--name', name, '--cluster', `${cluster}-${process.pid}`, '--no-discovery', '--threads', '1'],
      ...['--model', model, '--port', '0', '--link-port', '0', '--data', join(folder, name)],
      ...(peer ? ['--peer', `127.0.0.1:${peer.announcement.linkPort}`] : []),
    ];
    const daemon = new ChildDaemon(name, args, folder);
    started.push(daemon);
    await daemon.listening(AbortSignal.timeout(20_000));
    return daemon.announcement.apiUrl;
  };
}

test('a device joins a hub whose pack is damaged: the tiles come from another device that has the pack, and the hub says so', {
  timeout: 60_000,
}, async () => {
  const damaged = await copyOfModel();
  const whole = await emulated({ devices: 1 }, ask);
  const start = await startDaemons('damaged');
  const hub = await start('hub', damaged);
  const computing = async () => (await fetchStatus(hub)).devices.filter(({ tiles }) => tiles > 0).length;
  await start('other', builtInModel());
  await expect.poll(computing, { timeout: 20_000 }).toBe(2);
  await damage(join(damaged, 'tiles.bin'));
  await start('new', 'none');
  await expect.poll(computing, { timeout: 30_000 }).toBe(3);
  expect((await generate(hub, promptTokens(20), 12, [])).tokens).toEqual(whole);
  expect((await fetchStatus(hub)).notes).toEqual([
    expect.stringMatching(/tiles\.bin: tiles are lost or wrong/),
  ]);
});

test('embedding rows damaged on the hub come from another device that has the pack, with the same answer', {
  timeout: 60_000,
}, async () => {
  const damaged = await copyOfModel();
  const whole = await emulated({ devices: 1 }, ask);
  const start = await startDaemons('rows');
  const hub = await start('hub', damaged);
  await start('other', builtInModel());
  const { embedding } = readManifest(await readFile(join(damaged, 'manifest.json')), 'manifest.json');
  const { offset, rowBytes, bytes } = embedding;
  await damage(join(damaged, 'tiles.bin'), rowBytes, offset + 77, offset + bytes);
  await expect.poll(async () => (await fetchStatus(hub)).devices.length, { timeout: 20_000 }).toBe(2);
  expect((await generate(hub, promptTokens(20), 12, [])).tokens).toEqual(whole);
});
