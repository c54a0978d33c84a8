#!/usr/bin/env node
// Brings a clone to where it can run, doing only what is stale. One line per step that does something.

import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { withLock } from './setup-lock.mjs';
import {
  compiledIsStale,
  isClone,
  modulesAreStale,
  nodeIsNewEnough,
  sourceStamp,
  stampPath,
} from './setup-state.mjs';

export const projectRoot = dirname(dirname(fileURLToPath(import.meta.url)));

/** A step that failed; the message says it all. */
export class SetupError extends Error {}

/**
 * Installs packages, builds the native addon, compiles TypeScript: whatever is stale.
 * @param {(line: string) => void} say where lines go; standard error unless given, because standard output belongs
 *   to the command that runs afterwards
 */
export async function setup(root = projectRoot, say = line => process.stderr.write(`${line}\n`)) {
  checkNode(root);
  const addon = await import('./build-addon.mjs');
  const stale = () =>
    (isClone(root) && (modulesAreStale(root) || compiledIsStale(root))) || addon.addonIsStale();
  if (!stale()) return;
  const onWait = pid => say(`Waiting for process ${pid}, which is setting up the same folder.`);
  await withLock(join(root, 'build', 'setup-lock'), onWait, async () => {
    if (isClone(root) && modulesAreStale(root)) await installModules(root, say);
    if (addon.addonIsStale()) await buildNative(root, addon, say);
    if (isClone(root) && compiledIsStale(root)) await compile(root, say);
  });
}

function checkNode(root) {
  const needed = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).engines.node;
  if (nodeIsNewEnough(process.version, needed)) return;
  throw new SetupError(
    `Potluck needs Node.js ${needed}, and this is ${process.version}. Get a newer one at https://nodejs.org.`,
  );
}

async function installModules(root, say) {
  say('Installing packages (npm ci) ...');
  // .npmrc keeps install scripts off: no package here needs one, and onnxruntime-node's would download from elsewhere.
  const { code, output } = await run(npmCommand(), ['ci', '--loglevel=error'], root);
  // Behind the reason npm prints its whole help.
  if (code !== 0) throw new SetupError(`npm ci failed:\n${output.split('\n').slice(0, 12).join('\n')}`);
}

const npmCommand = () => (process.platform === 'win32' ? 'npm.cmd' : 'npm');

async function buildNative(root, addon, say) {
  const errorFile = join(root, 'build', 'addon-error.txt');
  say('Building the native addon ...');
  try {
    await addon.buildAddon();
    rmSync(errorFile, { force: true });
  } catch (error) {
    // What an earlier build left belongs to other sources.
    rmSync(addon.ADDON_PATH, { force: true });
    const reason = error instanceof Error ? error.message : String(error);
    mkdirSync(dirname(errorFile), { recursive: true });
    writeFileSync(errorFile, `${reason}\n`);
    const line = reason.split('\n').find(text => text.trim() !== '') ?? 'no reason was given';
    say(
      `The native addon was not built (${line.trim()}): onnxruntime computes instead. All of it: ${errorFile}`,
    );
  }
}

async function compile(root, say) {
  say('Compiling TypeScript ...');
  const stamp = sourceStamp(root);
  rmSync(stampPath(root), { force: true });
  const compiler = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
  // Without the incremental record: it takes emitted files for granted, also where somebody removed them.
  const settings = ['-p', 'tsconfig.json', '--incremental', 'false', '--tsBuildInfoFile', 'null'];
  const { code, output } = await run(process.execPath, [compiler, ...settings], root);
  if (code !== 0) throw new SetupError(`TypeScript does not compile:\n${output}`);
  writeFileSync(stampPath(root), stamp);
}

/** Runs a program to its end. Never rejects: `code` is its exit code, `output` what it wrote. */
export function run(command, args, cwd) {
  return new Promise(resolve => {
    execFile(command, args, { cwd, maxBuffer: 64 << 20 }, (error, stdout, stderr) => {
      const started = error === null || error.code === undefined || typeof error.code === 'number';
      const code = error === null ? 0 : typeof error.code === 'number' ? error.code : 1;
      resolve({ code, output: started ? `${stdout}${stderr}`.trim() : String(error.message) });
    });
  });
}

/** Runs `setup` and ends the process where it fails. */
export async function setupOrExit() {
  try {
    await setup();
  } catch (error) {
    process.stderr.write(
      `potluck: ${error instanceof SetupError ? error.message : (error.stack ?? error)}\n`,
    );
    process.exit(1);
  }
}

const entry = process.argv[1];
if (entry !== undefined && existsSync(entry) && realpathSync(entry) === fileURLToPath(import.meta.url)) {
  await setupOrExit();
}
