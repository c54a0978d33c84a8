import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { openDataFolder } from '../../src/daemon/data-folder.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'potluck-data-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const locks = () => readdirSync(folder).filter(name => name.startsWith('lock'));

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
  writeFileSync(join(folder, `lock.${child.pid}-12345`), '');
  const data = openDataFolder(folder);
  expect(locks()).toEqual([expect.stringContaining(`lock.${process.pid}-`)]);
  data.release();
  expect(locks()).toEqual([]);
});

test('a process number that was given to another process does not hold the lock', ctx => {
  if (process.platform !== 'linux') {
    console.warn('skipped: only /proc tells when a process started');
    return ctx.skip();
  }
  writeFileSync(join(folder, `lock.${process.pid}-1`), '');
  openDataFolder(folder).release();
  expect(locks()).toEqual([]);
});

test('who is refused leaves the lock to its owner, and removes only those of processes that ended', async () => {
  const child = spawn(process.execPath, ['-e', 'process.stdin.resume()']);
  const name = `lock.${child.pid}-`;
  writeFileSync(join(folder, name), '');
  writeFileSync(join(folder, 'lock.99999999-1'), '');
  expect(() => openDataFolder(folder)).toThrow(new RegExp(`process ${child.pid}`));
  expect(locks()).toEqual([name]);
  const ended = new Promise(resolve => child.on('exit', resolve));
  child.stdin.end();
  await ended;
  openDataFolder(folder).release();
});

test('a folder that cannot be used is not kept', () => {
  mkdirSync(join(folder, 'device.json'));
  expect(() => openDataFolder(folder)).toThrow(/cannot be used as the data folder/);
  expect(locks()).toEqual([]);
});

test('a damaged identity is replaced, and a path that is a file is an error in words', () => {
  writeFileSync(join(folder, 'device.json'), '{"id": "../../etc"}');
  const data = openDataFolder(folder);
  expect(data.deviceId).toMatch(/^[0-9a-f]{32}$/);
  data.release();
  writeFileSync(join(folder, 'file'), '');
  expect(() => openDataFolder(join(folder, 'file'))).toThrow(/cannot be used as the data folder/);
});
