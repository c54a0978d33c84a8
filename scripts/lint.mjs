#!/usr/bin/env node
// Formatter and linter in one command: Biome, as WebAssembly, so that one lock file serves every platform.
// `--fix` writes what can be mended.

import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Biome } from '@biomejs/js-api/nodejs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const fix = process.argv.includes('--fix');
const biome = new Biome();
const { projectKey } = biome.openProject(root);
biome.applyConfiguration(projectKey, JSON.parse(readFileSync(join(root, 'biome.json'), 'utf8')));

let problems = 0;
const files = sourceFiles();
for (const path of files) {
  const before = readFileSync(join(root, path), 'utf8');
  const linted = biome.lintContent(projectKey, before, {
    filePath: path,
    ...(fix ? { fixFileMode: 'safeFixes' } : {}),
  });
  for (const diagnostic of linted.diagnostics) report(path, before, diagnostic);
  const source = fix ? linted.content : before;
  const { content } = biome.formatContent(projectKey, source, { filePath: path });
  if (content !== before && fix) writeFileSync(join(root, path), content);
  else if (content !== before) {
    problems++;
    console.log(`${path}: is not formatted (npm run fix)`);
  }
}
biome.shutdown();
console.log(`${files.length} files, ${problems} problems`);
process.exitCode = problems === 0 ? 0 : 1;

function sourceFiles() {
  const below = ['src', 'test', 'scripts'].flatMap(folder =>
    readdirSync(join(root, folder), { recursive: true }).map(path => `${folder}/${path}`),
  );
  return [...readdirSync(root), ...below]
    .filter(path => /\.(ts|mjs|json)$/.test(path) && path !== 'package-lock.json')
    .sort();
}

/** Prints a finding as path:line. Hints do not count. */
function report(path, source, { severity, category, location, message }) {
  if (severity === 'information' || severity === 'hint') return;
  problems++;
  const start = location.span?.[0] ?? 0;
  const line = Buffer.from(source).subarray(0, start).toString().split('\n').length;
  const text = message.map(part => (typeof part === 'string' ? part : part.content)).join('');
  console.log(`${path}:${line} ${category}: ${text}`);
}
