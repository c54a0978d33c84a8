import { spawn } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { builtInModel, compiledMain } from '../../src/cli/project.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'potluck-bad-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** Runs the command line until it ends by itself; at most 20 s. */
function potluck(...args: string[]): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const child = spawn(process.execPath, [compiledMain(), ...args], { timeout: 20_000 });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', data => {
    stdout += data;
  });
  child.stderr.on('data', data => {
    stderr += data;
  });
  child.stdin.end();
  return new Promise(resolve => child.on('exit', code => resolve({ code, stdout, stderr })));
}

const up = (...args: string[]) =>
  potluck('up', '--no-discovery', '--port', '0', '--link-port', '0', '--data', join(folder, 'data'), ...args);

/** One line for a user, without a stack. */
function expectMessage(result: { code: number | null; stderr: string }, ...parts: (string | RegExp)[]): void {
  expect(result.code).toBe(1);
  for (const part of parts) expect(result.stderr).toMatch(part);
  expect(result.stderr).not.toMatch(/\n\s+at /);
}

test('a model that is not there', async () => {
  expectMessage(await up('--model', join(folder, 'nothing')), 'PACK_NOT_FOUND', 'potluck pack');
});

test('a pack that is cut short names file and tile', async () => {
  const pack = join(folder, 'pack');
  cpSync(builtInModel(), pack, { recursive: true });
  truncateSync(join(pack, 'tiles.bin'), 20_000_000);
  expectMessage(await up('--model', pack), 'PACK_INVALID', 'tiles.bin', /tile \d+ is missing/);
});

test('a pack of a newer version, and a folder that is no pack', async () => {
  const pack = join(folder, 'pack');
  cpSync(builtInModel(), pack, { recursive: true });
  const manifest = JSON.parse(readFileSync(join(pack, 'manifest.json'), 'utf8'));
  writeFileSync(join(pack, 'manifest.json'), JSON.stringify({ ...manifest, version: 99 }));
  expectMessage(await up('--model', pack), 'PACK_VERSION', '99');
  writeFileSync(join(pack, 'manifest.json'), '{"hello": 1}');
  expectMessage(await up('--model', pack), 'PACK_INVALID', 'manifest.json');
});

test('a port in use says who holds it', async () => {
  const server = createServer();
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const result = await up('--port', String(port));
  server.close();
  expectMessage(result, 'PORT_IN_USE', String(port), '--port');
  if (process.platform === 'linux') expect(result.stderr).toContain(String(process.pid));
});

test('two daemons with one data folder', async () => {
  const first = spawn(process.execPath, [
    ...[compiledMain(), 'up', '--child', '--no-discovery', '--port', '0', '--link-port', '0'],
    ...['--data', join(folder, 'data')],
  ]);
  await new Promise(resolve => first.stdout.once('data', resolve));
  const second = await up();
  const ended = new Promise(resolve => first.once('exit', resolve));
  first.stdin.end();
  await ended;
  expectMessage(second, 'DATA_FOLDER_IN_USE', String(first.pid), '--data');
});

test('an unknown kernel, a memory that is no size, an option that does not exist', async () => {
  expectMessage(await up('--kernel', 'abacus'), 'KERNEL_UNKNOWN', 'abacus', 'reference', '--kernel');
  expectMessage(await up('--window', '1'), 'MEMORY_TOO_SMALL', '--window 1 byte is');
  expectMessage(await up('--memory', 'lots'), 'BAD_OPTION', 'lots');
  expect((await up('--colour', 'red')).code).toBe(1);
});

test('too little memory says the least that would do, and that is enough', { timeout: 40_000 }, async () => {
  const refused = await up('--memory', '64M');
  expectMessage(refused, 'MEMORY_TOO_SMALL', '64 MiB');
  const least = Number(/at least (\d+) MiB/.exec(refused.stderr)?.[1]);
  const child = spawn(process.execPath, [
    ...[compiledMain(), 'up', '--child', '--no-discovery', '--port', '0', '--link-port', '0'],
    ...['--data', join(folder, 'data'), '--memory', `${least}M`],
  ]);
  const [line] = await new Promise<Buffer[]>(resolve => child.stdout.once('data', data => resolve([data])));
  const { apiUrl } = JSON.parse(String(line));
  await expect.poll(async () => (await fetch(`${apiUrl}/healthz`)).status, { timeout: 10_000 }).toBe(200);
  const ended = new Promise(resolve => child.once('exit', resolve));
  child.stdin.end();
  await ended;
});
