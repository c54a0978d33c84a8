import { mkdtempSync, rmSync } from 'node:fs';
import { cp, mkdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { fetchStatus, generate } from '../../src/cli/api-client.ts';
import { ChildDaemon } from '../../src/cli/emulate/child-daemon.ts';
import { missingIn } from '../../src/cli/emulate/emulation.ts';
import { builtInModel } from '../../src/cli/project.ts';
import type { DeviceStatus } from '../../src/daemon/status.ts';
import { promptTokens } from './emulated.ts';
import { breakDisk, buildFailingDisk, mendDisk } from './failing-disk.ts';

const disk = buildFailingDisk();
const EVERYWHERE = { from: 0, to: 2 ** 40 };

/** A hub with the pack and a spoke that is sent its tiles, both with a window of 2 MiB, on disks that may fail. */
describe.skipIf(disk === null)('when the system cannot read or write', () => {
  let root: string;
  let answer: readonly number[];
  const daemons: ChildDaemon[] = [];
  const pack = () => join(root, 'pack');
  const spokeTiles = () => join(root, 'spoke', 'tiles');

  async function start(name: string, ...args: string[]): Promise<ChildDaemon> {
    const common = ['--no-discovery', '--port', '0', '--link-port', '0', '--threads', '1', '--window', '2M'];
    const own = ['--name', name, '--cluster', `failing-disk-${process.pid}`, '--data', join(root, name)];
    process.env.LD_PRELOAD = disk!.library;
    const daemon = new ChildDaemon(name, [...common, ...own, ...args], join(root, `home-${name}`));
    delete process.env.LD_PRELOAD;
    daemons.push(daemon);
    await daemon.listening(AbortSignal.timeout(20_000));
    return daemon;
  }

  const ask = async (): Promise<readonly number[]> =>
    (await generate(daemons[0]!.announcement.apiUrl, promptTokens(20), 8, [])).tokens;

  const serving = (count: number): Promise<void> =>
    vi.waitFor(
      async () => {
        const urls = daemons.slice(0, count).map(each => each.announcement.apiUrl);
        expect(missingIn(await Promise.all(urls.map(url => fetchStatus(url))))).toBe(null);
      },
      { timeout: 20_000, interval: 100 },
    );

  async function windowOf(daemon: ChildDaemon): Promise<NonNullable<DeviceStatus['window']>> {
    const { device, devices } = await fetchStatus(daemon.announcement.apiUrl);
    return devices.find(({ id }) => id === device.id)!.window!;
  }

  beforeAll(async () => {
    root = mkdtempSync(join(tmpdir(), 'potluck-failing-'));
    await cp(builtInModel(), pack(), { recursive: true });
    await start('hub', '--model', pack());
    await serving(1);
    answer = await ask();
  });

  afterAll(async () => {
    await Promise.all(daemons.map(daemon => daemon.stop()));
    rmSync(root, { recursive: true, force: true });
    disk!.remove();
  });

  test('a device whose disk is full is left out, and joins when there is room', async () => {
    await mkdir(spokeTiles(), { recursive: true });
    await breakDisk(spokeTiles(), 'full');
    const peer = `127.0.0.1:${daemons[0]!.announcement.linkPort}`;
    const spoke = await start('spoke', '--model', 'none', '--peer', peer);
    await expect.poll(() => daemons[0]!.lastWords, { timeout: 10_000 }).toMatch(/left out .*disk is full/);
    await serving(1);
    expect(await ask()).toEqual(answer);
    expect(spoke.exit).toBe(null);
    expect(await mendDisk(spokeTiles())).toBeGreaterThan(0);
    await serving(2);
    expect(await ask()).toEqual(answer);
  });

  test('a read that fails once is tried again', async () => {
    const { retries, recovered } = await windowOf(daemons[1]!);
    await breakDisk(spokeTiles(), { eio: { count: 1, ...EVERYWHERE } });
    expect(await ask()).toEqual(answer);
    expect(await mendDisk(spokeTiles())).toBeGreaterThan(0);
    expect(await windowOf(daemons[1]!)).toMatchObject({ retries: retries + 1, recovered });
  });

  test('tiles on a part of the disk that cannot be read any more come from the hub, and lie elsewhere then', async () => {
    const { recovered } = await windowOf(daemons[1]!);
    await breakDisk(spokeTiles(), { eio: { count: 0, from: 500_000, to: 500_100 } });
    expect(await ask()).toEqual(answer);
    const after = await windowOf(daemons[1]!);
    expect(after.recovered).toBe(recovered + 1);
    expect(await ask()).toEqual(answer);
    expect((await windowOf(daemons[1]!)).recovered).toBe(after.recovered);
    expect(await mendDisk(spokeTiles())).toBeGreaterThan(0);
  });

  test('a disk that fails every read is a clear error to the request, and no more once it works', async () => {
    await breakDisk(pack(), { eio: { count: 0, ...EVERYWHERE } });
    await expect(ask()).rejects.toMatchObject({ code: 'DISK_READ' });
    await expect(ask()).rejects.toThrow(/EIO/);
    await mendDisk(pack());
    await serving(2);
    expect(await ask()).toEqual(answer);
  });

  test('a disk that slows to a tenth gives the same answer', async () => {
    await breakDisk(spokeTiles(), { slow: 10 });
    await breakDisk(pack(), { slow: 10 });
    expect(await ask()).toEqual(answer);
    expect(await mendDisk(spokeTiles())).toBeGreaterThan(0);
    expect(await mendDisk(pack())).toBeGreaterThan(0);
    expect(daemons.map(({ exit }) => exit)).toEqual([null, null]);
  });
});
