import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { openDataFolder } from '../../src/daemon/data-folder.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'potluck-data-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

test('the identity stays the same between runs', () => {
  const first = openDataFolder(folder);
  first.release();
  const second = openDataFolder(folder);
  expect(second.deviceId).toBe(first.deviceId);
  expect(first.deviceId).toMatch(/^[0-9a-f]{32}$/);
  second.release();
});

test('a folder in use is refused, naming the process', () => {
  const held = openDataFolder(folder);
  expect(() => openDataFolder(folder)).toThrow(new RegExp(`process ${process.pid}.*--data`));
  held.release();
  openDataFolder(folder).release();
});

test('the lock of a process that ended is taken over', async () => {
  const child = spawn(process.execPath, ['-e', '0']);
  await new Promise(resolve => child.on('exit', resolve));
  writeFileSync(join(folder, 'lock'), `${child.pid} 12345\n`);
  const data = openDataFolder(folder);
  expect(readFileSync(join(folder, 'lock'), 'utf8')).toContain(`${process.pid} `);
  data.release();
});

test('a process number that was given to another process does not hold the lock', ctx => {
  if (process.platform !== 'linux') {
    console.warn('skipped: only /proc tells when a process started');
    return ctx.skip();
  }
  writeFileSync(join(folder, 'lock'), `${process.pid} 1\n`);
  openDataFolder(folder).release();
});

test('a damaged identity is replaced, and a path that is a file is an error in words', () => {
  writeFileSync(join(folder, 'device.json'), '{"id": "../../etc"}');
  const data = openDataFolder(folder);
  expect(data.deviceId).toMatch(/^[0-9a-f]{32}$/);
  data.release();
  writeFileSync(join(folder, 'file'), '');
  expect(() => openDataFolder(join(folder, 'file'))).toThrow(/cannot be used as the data folder/);
});
