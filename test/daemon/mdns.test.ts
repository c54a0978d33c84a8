import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { compiledMain } from '../../src/cli/project.ts';

const NAMESPACE = `potluck-test-${process.pid}`;
const ip = (...args: string[]) => execFileSync('ip', args, { stdio: 'pipe' }).toString();

function makeNamespace(): string | null {
  try {
    ip('netns', 'add', NAMESPACE);
    ip('-n', NAMESPACE, 'link', 'set', 'lo', 'up');
    return null;
  } catch (error) {
    return (error as Error).message.split('\n')[0]!;
  }
}

/** A daemon inside the namespace, with no setting that names the other. */
async function startInside(port: number, folder: string, model: string[]) {
  const args = [
    'up',
    '--child',
    '--port',
    String(port),
    '--data',
    join(folder, String(port)),
    '--threads',
    '1',
    ...model,
  ];
  const child = spawn('ip', ['netns', 'exec', NAMESPACE, process.execPath, compiledMain(), ...args]);
  child.stderr.resume();
  await new Promise(resolve => child.stdout.once('data', resolve));
  return child;
}

/** What a command inside the namespace prints. */
const inside = (...args: string[]) => {
  try {
    return ip('netns', 'exec', NAMESPACE, process.execPath, compiledMain(), ...args);
  } catch (error) {
    return (error as Error).message;
  }
};

const stop = (child: ChildProcess) =>
  new Promise(resolve => {
    child.once('exit', resolve);
    child.stdin!.end();
  });

test('two daemons that know nothing of each other become one cluster by mDNS', {
  timeout: 60_000,
}, async ctx => {
  const problem = makeNamespace();
  if (problem !== null) {
    console.warn(`skipped: no network namespace can be made here: ${problem}`);
    return ctx.skip();
  }
  const folder = mkdtempSync(join(tmpdir(), 'potluck-mdns-'));
  const daemons: ChildProcess[] = [];
  try {
    daemons.push(await startInside(11500, folder, []));
    daemons.push(await startInside(11510, folder, ['--model', 'none']));
    const plan = () => JSON.parse(inside('status', '--port', '11510', '--json'));
    await expect
      .poll(() => plan().devices.map((d: { role: string }) => d.role), { timeout: 20_000, interval: 300 })
      .toEqual(expect.arrayContaining(['hub', 'spoke']));
    expect(plan().devices.every((device: { tiles: number }) => device.tiles > 50)).toBe(true);
    expect(
      inside('chat', '--port', '11510', '--temperature', '0', 'What is the capital of Italy?'),
    ).toContain('Rome');
  } finally {
    await Promise.all(daemons.map(stop));
    ip('netns', 'del', NAMESPACE);
    rmSync(folder, { recursive: true, force: true });
  }
});
