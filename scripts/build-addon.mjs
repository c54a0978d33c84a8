#!/usr/bin/env node
// Compiles the native addon to build/potluck.node: only the files that changed, two at a time, without any download.

import { spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const SOURCE_FOLDERS = ['src/kernels/native', 'src/disk-io/native'];
const OBJECT_FOLDER = join(root, 'build', 'obj');
export const ADDON_PATH = join(root, 'build', 'potluck.node');
const PARALLEL = 2;

export const FLAGS = [
  '-std=c++17',
  '-O3',
  '-fPIC',
  '-ffp-contract=off',
  '-fvisibility=hidden',
  '-Wall',
  '-Wextra',
  '-DNAPI_VERSION=8',
  '-DNODE_GYP_MODULE_NAME=potluck',
];

/** Files with an instruction set of their own, by processor; on another processor they compile to nothing. */
export const FILE_FLAGS = {
  x64: {
    'kernels_avx2.cc': ['-mavx2', '-mfma', '-mf16c'],
    'kernels_avxvnni.cc': ['-mavx2', '-mfma', '-mf16c', '-mavxvnni'],
    'kernels_avx512vnni.cc': [
      ...['-mavx2', '-mfma', '-mf16c', '-mavx512f', '-mavx512bw', '-mavx512vl', '-mavx512dq', '-mavx512vnni'],
      '-mprefer-vector-width=512',
    ],
  },
  arm64: {
    'crc32c_arm.cc': ['-march=armv8-a+crc'],
    'kernels_neon_dot.cc': ['-march=armv8.2-a+dotprod'],
    'kernels_neon_i8mm.cc': ['-march=armv8.2-a+dotprod+i8mm'],
  },
};

/** What not every compiler knows that is new enough otherwise: without it that file compiles to an empty table of kernels. */
const OPTIONAL_FLAG = '-mavxvnni';

const flagsOf = name => [...FLAGS, ...(FILE_FLAGS[process.arch]?.[name] ?? [])];

/** Candidates for the folder of node_api.h, best first. */
function headerFolders() {
  const version = process.version.slice(1);
  const cache =
    process.platform === 'darwin' ? join(homedir(), 'Library', 'Caches') : join(homedir(), '.cache');
  return [
    join(dirname(dirname(process.execPath)), 'include', 'node'),
    join(process.env.npm_config_devdir ?? join(cache, 'node-gyp'), version, 'include', 'node'),
  ];
}

function findHeaders() {
  const folders = headerFolders();
  const found = folders.find(folder => existsSync(join(folder, 'node_api.h')));
  if (found) return found;
  throw new Error(
    `The headers of Node.js ${process.version} are missing: there is no node_api.h in ${folders.join(' or ')}. ` +
      'Install Node.js from https://nodejs.org (its archive has them) or the headers package of your system.',
  );
}

const compilers = () => (process.env.CXX ? [process.env.CXX] : ['g++', 'c++', 'clang++']);

async function findCompiler() {
  for (const name of compilers()) {
    const { code } = await run(name, ['--version']).catch(() => ({ code: -1 }));
    if (code === 0) return name;
  }
  throw new Error(
    `There is no C++ compiler: tried ${compilers().join(', ')}. Install g++ or clang++ (Debian: apt install g++; ` +
      'macOS: xcode-select --install), or name one in CXX.',
  );
}

/** Every source with its object and what it was made from; headers count for all sources. */
function listWork() {
  const sources = [];
  let newestHeader = 0;
  for (const folder of SOURCE_FOLDERS.map(name => join(root, name)).filter(existsSync)) {
    for (const name of readdirSync(folder).sort()) {
      const path = join(folder, name);
      if (name.endsWith('.h')) newestHeader = Math.max(newestHeader, statSync(path).mtimeMs);
      if (!name.endsWith('.cc')) continue;
      const object = join(OBJECT_FOLDER, `${basename(dirname(folder))}-${name.slice(0, -3)}.o`);
      sources.push({ path, object, flags: flagsOf(name), time: statSync(path).mtimeMs });
    }
  }
  return sources.map(source => ({ ...source, time: Math.max(source.time, newestHeader) }));
}

const timeOf = path => statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Number.NEGATIVE_INFINITY;

const stampPath = object => `${object}.flags`;

/** What an object depends on besides files: flags, compiler, Node.js. */
const stampOf = source => [process.env.CXX ?? '', process.version, process.arch, ...source.flags].join('\n');

const objectIsStale = source =>
  timeOf(source.object) < source.time ||
  !existsSync(stampPath(source.object)) ||
  readFileSync(stampPath(source.object), 'utf8') !== stampOf(source);

/** The list of objects of the last link: a source that was removed makes the addon stale. */
const linkStamp = join(OBJECT_FOLDER, 'linked.txt');
const linkList = work => work.map(source => source.object).join('\n');

const linkIsStale = work =>
  !existsSync(linkStamp) ||
  readFileSync(linkStamp, 'utf8') !== linkList(work) ||
  work.some(source => timeOf(source.object) > timeOf(ADDON_PATH));

/** Whether buildAddon would do anything. */
export function addonIsStale() {
  const work = listWork();
  return work.some(objectIsStale) || linkIsStale(work);
}

/**
 * Brings build/potluck.node up to date and returns its path. Throws an Error whose message says what is missing or
 * what the compiler said.
 */
export async function buildAddon() {
  const work = listWork();
  const stale = work.filter(objectIsStale);
  if (stale.length === 0 && !linkIsStale(work)) return ADDON_PATH;
  const headers = findHeaders();
  const compiler = await findCompiler();
  mkdirSync(OBJECT_FOLDER, { recursive: true });
  const queue = [...stale];
  const worker = async () => {
    for (let source = queue.shift(); source; source = queue.shift()) await compile(compiler, headers, source);
  };
  await Promise.all(Array.from({ length: PARALLEL }, worker));
  await link(compiler, work);
  return ADDON_PATH;
}

async function compile(compiler, headers, source) {
  rmSync(stampPath(source.object), { force: true });
  const known = await knownFlags(compiler, source.flags);
  const args = [...known, '-isystem', headers, '-c', source.path, '-o', source.object];
  await mustRun(compiler, args, `could not compile ${source.path}`);
  writeFileSync(stampPath(source.object), stampOf(source));
}

async function knownFlags(compiler, flags) {
  if (!flags.includes(OPTIONAL_FLAG)) return flags;
  const { code } = await run(compiler, [OPTIONAL_FLAG, '-fsyntax-only', '-x', 'c++', '/dev/null']);
  return code === 0 ? flags : flags.filter(flag => flag !== OPTIONAL_FLAG);
}

async function link(compiler, work) {
  rmSync(linkStamp, { force: true });
  // A process that has the old file loaded keeps it: the new one takes its place by name.
  const fresh = `${ADDON_PATH}.${process.pid}`;
  const system = process.platform === 'darwin' ? ['-undefined', 'dynamic_lookup'] : ['-pthread'];
  const args = ['-shared', '-o', fresh, ...work.map(source => source.object), ...system];
  await mustRun(compiler, args, 'could not link the addon');
  renameSync(fresh, ADDON_PATH);
  writeFileSync(linkStamp, linkList(work));
}

async function mustRun(command, args, problem) {
  const { code, output } = await run(command, args);
  if (code !== 0) throw new Error(`${command} ${problem}:\n${output}`);
}

/** Runs a program; the output is what it wrote to both streams. */
function run(command, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8');
      stream.on('data', text => {
        output += text;
      });
    }
    child.on('error', reject);
    child.on('close', code => resolve({ code, output }));
  });
}

if (process.argv[1] && fileURLToPath(import.meta.url) === process.argv[1]) {
  try {
    console.log(await buildAddon());
  } catch (error) {
    console.error(error.message);
    process.exitCode = 1;
  }
}
