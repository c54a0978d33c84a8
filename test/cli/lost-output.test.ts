import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { expect, test } from 'vitest';
import { compiledMain } from '../../src/cli/project.ts';

const start = (args: readonly string[], output: number | 'pipe'): ChildProcess =>
  spawn(process.execPath, [compiledMain(), ...args], { stdio: ['ignore', output, 'pipe'] });

/** How a command ended, and what it said on standard error. */
async function end(child: ChildProcess): Promise<{ code: number; errors: string }> {
  const [errors, [code]] = await Promise.all([text(child.stderr!), once(child, 'close')]);
  return { code, errors };
}

test('a command ends without a word when the reader of its output has left', async () => {
  const child = start(['--help'], 'pipe');
  child.stdout!.destroy();
  expect(await end(child)).toEqual({ code: 141, errors: '' });
});

test('a command that cannot write its output ends with one line', async ctx => {
  if (!existsSync('/dev/full')) {
    console.warn('skipped: no /dev/full');
    return ctx.skip();
  }
  const full = openSync('/dev/full', 'w');
  const { code, errors } = await end(start(['--help'], full));
  closeSync(full);
  expect(code).toBe(1);
  expect(errors).toMatch(/^potluck: Standard output cannot be written: ENOSPC.* \(DISK_WRITE\)\n$/);
});

test('a daemon goes on when the reader of its log has left', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'potluck-log-'));
  const options = ['--port', '0', '--model', 'none', '--no-discovery', '--cluster', 'log', '--data', folder];
  const child = start(['up', ...options], 'pipe');
  try {
    const ended = end(child);
    const [greeting] = await once(child.stdout!, 'data');
    child.stdout!.destroy();
    const url = /http:\/\/127\.0\.0\.1:\d+/.exec(String(greeting))![0];
    await once(child.stdout!, 'close');
    expect((await fetch(`${url}/potluck/status`)).ok).toBe(true);
    // It says that it stops, if nothing else.
    child.kill('SIGTERM');
    const { code, errors } = await ended;
    expect(code).toBe(0);
    expect(errors).toMatch(
      /^potluck: Going on without a log, it cannot be written: .*EPIPE \(DISK_WRITE\)\n$/,
    );
  } finally {
    child.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  }
});
