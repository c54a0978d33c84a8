import { mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
// @ts-expect-error: plain JavaScript, because it runs before anything is compiled
import * as lock from '../../../scripts/setup-lock.mjs';
// @ts-expect-error: plain JavaScript
import * as state from '../../../scripts/setup-state.mjs';
// @ts-expect-error: plain JavaScript
import * as summary from '../../../scripts/test-summary.mjs';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'potluck-setup-'));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

function put(path: string, content: unknown): void {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), typeof content === 'string' ? content : JSON.stringify(content));
}

test('versions of Node.js', () => {
  const enough = (version: string): boolean => state.nodeIsNewEnough(version, '>=20.19.0');
  expect(['v20.19.0', 'v20.20.2', 'v22.0.0', 'v100.0.0'].map(enough)).toEqual([true, true, true, true]);
  expect(['v20.18.9', 'v18.20.0', 'v9.99.99'].map(enough)).toEqual([false, false, false]);
});

test('packages are stale when what is installed is not what the lock file asks for', () => {
  const wanted = {
    '': { name: 'potluck' },
    'node_modules/a': { version: '1.0.0' },
    'node_modules/b': { version: '2.0.0', optional: true },
  };
  const stale = (installed: object | null): boolean => {
    if (installed !== null) put('node_modules/.package-lock.json', { packages: installed });
    return state.modulesAreStale(root);
  };
  put('package-lock.json', { packages: wanted });
  expect(stale(null)).toBe(true);
  expect(stale({ 'node_modules/a': { version: '1.0.0' }, 'node_modules/b': { version: '2.0.0' } })).toBe(
    false,
  );
  expect(stale({ 'node_modules/a': { version: '1.0.0' } })).toBe(false);
  expect(stale({ 'node_modules/a': { version: '1.0.1' } })).toBe(true);
  expect(stale({ 'node_modules/a': { version: '1.0.0' }, 'node_modules/b': { version: '1.0.0' } })).toBe(
    true,
  );
  expect(stale({ 'node_modules/b': { version: '2.0.0' } })).toBe(true);
});

test('compiled files are stale after any change of a source', () => {
  put('src/cli/main.ts', 'one');
  put('tsconfig.json', '{}');
  put('node_modules/typescript/package.json', '{}');
  const compiled = (): void => {
    put('build/js/cli/main.js', 'one');
    put('build/js/source-stamp', state.sourceStamp(root));
  };
  expect(state.compiledIsStale(root)).toBe(true);
  compiled();
  expect(state.compiledIsStale(root)).toBe(false);
  utimesSync(join(root, 'src/cli/main.ts'), 1000, 1000);
  expect(state.compiledIsStale(root)).toBe(true);
  compiled();
  put('src/new.ts', '');
  expect(state.compiledIsStale(root)).toBe(true);
  compiled();
  rmSync(join(root, 'src/new.ts'));
  expect(state.compiledIsStale(root)).toBe(true);
  compiled();
  rmSync(join(root, 'build/js/cli/main.js'));
  expect(state.compiledIsStale(root)).toBe(true);
});

test('a lock counts only for living processes', () => {
  put('lock/11', '');
  put('lock/12', '');
  put('lock/13', '');
  put('lock/junk', '');
  const alive = (pid: number): boolean => pid !== 12;
  expect(lock.otherHolders(join(root, 'lock'), 13, alive)).toEqual([11]);
  expect(lock.otherHolders(join(root, 'lock'), 11, alive)).toEqual([13]);
});

test('the lock waits for another holder, then works, then is free again', async () => {
  const folder = join(root, 'lock');
  // The parent of this process lives, and sets up nothing.
  put(`lock/${process.ppid}`, '');
  const said: number[] = [];
  let worked = false;
  const done = lock.withLock(
    folder,
    (pid: number) => {
      said.push(pid);
      expect(worked).toBe(false);
      rmSync(join(folder, String(process.ppid)));
    },
    async () => {
      worked = true;
      expect(lock.otherHolders(folder, -1)).toEqual([process.pid]);
      return 7;
    },
  );
  expect(await done).toBe(7);
  expect(said).toEqual([process.ppid]);
  expect(lock.otherHolders(folder, -1)).toEqual([]);
});

test('the lock is free again after a failure', async () => {
  const folder = join(root, 'lock');
  await expect(
    lock.withLock(
      folder,
      () => undefined,
      () => Promise.reject(new Error('no')),
    ),
  ).rejects.toThrow('no');
  expect(lock.otherHolders(folder, -1)).toEqual([]);
});

test('counts of tests', () => {
  const file = (status: string, ...tests: string[]) => ({
    status,
    assertionResults: tests.map(each => ({ status: each })),
  });
  const report = (...testResults: object[]) => ({ testResults });
  expect(summary.sumUp(report(file('passed', 'passed', 'skipped', 'pending', 'todo')), 0, 0)).toEqual({
    passed: 1,
    failed: 0,
    skipped: 3,
  });
  expect(summary.sumUp(report(file('failed', 'passed', 'failed'), file('failed')), 1, 2)).toEqual({
    passed: 1,
    failed: 4,
    skipped: 0,
  });
  expect(summary.sumUp(report(file('passed', 'passed')), 1, 0).failed).toBe(1);
  expect(summary.sumUp(null, 1, 0).failed).toBe(1);
});
