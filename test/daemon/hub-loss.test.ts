import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { fetchStatus, streamChat } from '../../src/cli/api-client.ts';
import { ChildDaemon } from '../../src/cli/emulate/child-daemon.ts';
import { builtInModel } from '../../src/cli/project.ts';

const CLUSTER = `hub-loss-${process.pid}`;

/** A real daemon that holds the whole pack, so that it can be hub. */
async function start(name: string, folder: string, peer: number | null): Promise<ChildDaemon> {
  const args = [
    ...['--name', name, '--cluster', CLUSTER, '--no-discovery', '--threads', '1', '--model', builtInModel()],
    ...['--port', '0', '--link-port', '0', '--data', join(folder, name)],
    ...(peer === null ? [] : ['--peer', `127.0.0.1:${peer}`]),
  ];
  const daemon = new ChildDaemon(name, args, folder);
  await daemon.listening(AbortSignal.timeout(20_000));
  return daemon;
}

/** A greedy answer of `daemon`; `onPiece` is called with the number of pieces so far. */
async function tell(daemon: ChildDaemon, onPiece?: (pieces: number) => unknown): Promise<string> {
  const messages = [{ role: 'user' as const, content: 'Tell me a short story about a dog.' }];
  const options = { model: null, temperature: 0, maxTokens: 120 };
  let text = '';
  let pieces = 0;
  for await (const piece of streamChat(
    daemon.announcement.apiUrl,
    messages,
    options,
    AbortSignal.timeout(60_000),
  )) {
    text += piece;
    await onPiece?.(++pieces);
  }
  return text;
}

test('an answer of a spoke goes on with the same text when the hub is killed and the spoke becomes hub', {
  timeout: 90_000,
}, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'potluck-hub-loss-'));
  const daemons: ChildDaemon[] = [];
  try {
    const hub = await start('first', folder, null);
    daemons.push(hub);
    const spoke = await start('second', folder, hub.announcement.linkPort);
    daemons.push(spoke);
    const role = async () => (await fetchStatus(spoke.announcement.apiUrl)).device.role;
    await expect.poll(role, { timeout: 20_000 }).toBe('spoke');
    const undisturbed = await tell(spoke);
    const disturbed = await tell(spoke, pieces => (pieces === 15 ? hub.kill() : undefined));
    expect(disturbed).toBe(undisturbed);
    expect(await role()).toBe('alone');
  } finally {
    await Promise.all(daemons.map(daemon => daemon.stop()));
    rmSync(folder, { recursive: true, force: true });
  }
});
