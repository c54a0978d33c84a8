import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { ChildDaemon } from '../../src/cli/emulate/child-daemon.ts';
import { builtInModel } from '../../src/cli/project.ts';
import { startDaemon } from '../../src/daemon/daemon.ts';
import { dialControl } from '../../src/daemon/link-server.ts';
import type { DaemonOptions } from '../../src/daemon/options.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'potluck-start-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const locks = () => readdirSync(folder).filter(name => name.startsWith('lock'));

/** A device without a model or other devices. */
const options = (given: Partial<DaemonOptions>): DaemonOptions => ({
  ...{ apiHost: '127.0.0.1', apiPort: 0, linkPort: 0, dataFolder: folder, model: 'none', modelsFolder: null },
  ...{ memory: null, threads: 1, share: null, name: 'start', cluster: 'start', peers: [], discovery: false },
  ...{ advertiseHost: null, advertisePort: null, maxTokens: null, drafts: true, backend: 'auto' },
  ...{ kernel: null, windowBytes: null, diskBytes: null },
  ...given,
});

/** A port that was free a moment ago. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '0.0.0.0');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  await new Promise(resolve => server.close(resolve));
  return port;
}

test('a daemon that cannot close everything has stopped all the same, and says what it was', async () => {
  const daemon = await startDaemon(options({}));
  const [lock] = locks();
  rmSync(join(folder, lock!));
  mkdirSync(join(folder, lock!));
  await expect(daemon.stop()).rejects.toThrow(lock);
  await daemon.finished;
  await expect(fetch(`${daemon.apiUrl}/healthz`)).rejects.toThrow();
});

test('a device serves where its model cannot be remembered, says so, and ends when it is told to', async () => {
  mkdirSync(join(folder, 'model.json.new'));
  const args = ['--model', 'none', '--data', folder, '--no-discovery', '--port', '0', '--link-port', '0'];
  const daemon = new ChildDaemon('full', args, folder);
  try {
    await daemon.listening(AbortSignal.timeout(20_000));
    await expect.poll(() => daemon.lastWords).toContain('not remembered: give --model again');
  } finally {
    await daemon.stop();
  }
  expect(daemon.exit).toBe('exit code 0');
});

test('a device that connects before the daemon has started is refused, and the start goes on', async () => {
  const linkPort = await freePort();
  let refused = false;
  // The daemon asks whoever has its API port who they are; its link port is open then.
  const holder = createServer((_, response) => {
    void dialControl('127.0.0.1', linkPort).then(async socket => {
      await once(socket, 'close');
      refused = true;
      response.end('{}');
    });
  }).listen(0, '127.0.0.1');
  await once(holder, 'listening');
  const { port } = holder.address() as AddressInfo;
  await expect(startDaemon(options({ apiPort: port, linkPort }))).rejects.toMatchObject({
    code: 'PORT_IN_USE',
  });
  expect(refused).toBe(true);
  expect(locks()).toEqual([]);
  holder.closeAllConnections();
  await new Promise(resolve => holder.close(resolve));
});

test('a device that cannot take its part of a plan says why, and only the hub repeats it', async () => {
  const hub = await startDaemon(options({ model: builtInModel(), dataFolder: join(folder, 'hub') }));
  const peers = [{ host: '127.0.0.1', port: hub.linkPort }];
  const spoke = await startDaemon(options({ peers, diskBytes: 1 << 20, dataFolder: join(folder, 'spoke') }));
  const reason = /left out.*: --disk 1 MiB is too small: this device's tiles take \d+ MiB/;
  for (const daemon of [spoke, hub])
    await expect
      .poll(async () => (await daemon.status()).notes, { timeout: 20_000 })
      .toEqual([expect.stringMatching(reason)]);
  expect((await spoke.status()).notes[0]).toMatch(/^This device is left out/);
  await spoke.stop();
  await hub.stop();
});
