// What of a clone is stale. Reads only.

import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';

/** @param {string} version of node, such as 'v20.19.0' @param {string} range such as '>=20.19.0' */
export function nodeIsNewEnough(version, range) {
  const numbers = text =>
    text
      .replace(/^[^\d]*/, '')
      .split('.')
      .map(Number);
  const [have, need] = [numbers(version), numbers(range)];
  for (let i = 0; i < 3; i++) {
    if ((have[i] ?? 0) !== (need[i] ?? 0)) return (have[i] ?? 0) > (need[i] ?? 0);
  }
  return true;
}

/** A published package ships build/js and no tsconfig.json: nothing to install or compile there. */
export const isClone = root => existsSync(join(root, 'tsconfig.json'));

/**
 * Whether node_modules holds what package-lock.json asks for, by the record that npm leaves at the end of an install.
 * Compares contents, not times, so a copied or checked-out tree needs no new install. Optional packages may be absent.
 */
export function modulesAreStale(root) {
  const record = join(root, 'node_modules', '.package-lock.json');
  if (!existsSync(record)) return true;
  const packagesOf = path => JSON.parse(readFileSync(path, 'utf8')).packages;
  const installed = packagesOf(record);
  for (const [path, wanted] of Object.entries(packagesOf(join(root, 'package-lock.json')))) {
    if (path === '') continue;
    const found = installed[path];
    if (found === undefined ? !wanted.optional : found.version !== wanted.version) return true;
  }
  return false;
}

/** Changes whenever a source file, the compiler or its settings change: SHA-256 over names, sizes and times. */
export function sourceStamp(root) {
  const lines = [];
  const add = path => {
    const { size, mtimeMs } = statSync(join(root, path));
    lines.push(`${path} ${size} ${mtimeMs}`);
  };
  const walk = folder => {
    for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
      const path = `${folder}/${entry.name}`;
      if (entry.isDirectory()) walk(path);
      else if (path.endsWith('.ts')) add(path);
    }
  };
  walk('src');
  add('tsconfig.json');
  add('node_modules/typescript/package.json');
  return createHash('sha256').update(lines.sort().join('\n')).digest('hex');
}

export const stampPath = root => join(root, 'build', 'js', 'source-stamp');

/** Whether build/js is not what src would compile to. */
export function compiledIsStale(root) {
  const stamp = stampPath(root);
  if (!existsSync(stamp) || !existsSync(join(root, 'build', 'js', 'cli', 'main.js'))) return true;
  if (!existsSync(join(root, 'node_modules', 'typescript', 'package.json'))) return true;
  return readFileSync(stamp, 'utf8') !== sourceStamp(root);
}
