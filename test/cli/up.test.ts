import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { compiledMain } from '../../src/cli/project.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'potluck-up-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** Runs `up` until it has printed a line that matches, then stops it; resolves to its lines and to what it said on standard error. */
async function upUntil(
  line: RegExp,
  args: readonly string[],
  imported = '',
): Promise<{ lines: string[]; errors: string }> {
  const child = spawn(
    process.execPath,
    [
      ...['--import', `data:text/javascript,${imported}`, compiledMain(), 'up', '--port', '0'],
      ...['--no-discovery', '--cluster', 'up-test', '--data', join(folder, 'data'), ...args],
    ],
    { env: { ...process.env, POTLUCK_HOME: folder } },
  );
  let errors = '';
  child.stderr.on('data', data => {
    errors += data;
  });
  const lines: string[] = [];
  createInterface({ input: child.stdout }).on('line', text => {
    lines.push(text);
    if (line.test(text)) child.kill('SIGTERM');
  });
  await once(child, 'close');
  return { lines, errors };
}

test('what it prints of the cluster costs no client of its own API, which would take 14 MiB and 30 for a while', async () => {
  const { errors } = await upUntil(/^Serving /, [], 'globalThis.fetch=()=>{throw Error("fetched")}');
  expect(errors).toBe('');
});
