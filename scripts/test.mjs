#!/usr/bin/env node
// Everything that says whether the project is sound: format and lint, types, tests. The last line sums up.

import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { projectRoot, run, setupOrExit } from './setup.mjs';
import { sumUp } from './test-summary.mjs';

/** What compiles and runs the kernels of other processors. */
const FOREIGN = [
  {
    tests: 'of kernels for Arm',
    command: 'aarch64-linux-gnu-g++',
    version: '--version',
    packages: ['g++-aarch64-linux-gnu'],
  },
  {
    tests: 'of kernels for Arm',
    command: 'qemu-aarch64-static',
    version: '--version',
    packages: ['qemu-user-static'],
  },
];

await setupOrExit();
await systemPackages();

const failedChecks = [];
await check('format and lint', ['scripts/lint.mjs']);
await check('types', ['node_modules/typescript/bin/tsc', '--noEmit', '-p', 'tsconfig.check.json']);

const reportFile = join(projectRoot, 'build', 'test-report.json');
mkdirSync(dirname(reportFile), { recursive: true });
rmSync(reportFile, { force: true });
const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${reportFile}`];
const vitest = ['node_modules/vitest/vitest.mjs', 'run', ...reporters, ...process.argv.slice(2)];
const exitCode = await show(vitest);

const report = existsSync(reportFile) ? JSON.parse(readFileSync(reportFile, 'utf8')) : null;
if (report === null) console.log('vitest ended without a report.');
const { passed, failed, skipped } = sumUp(report, exitCode, failedChecks.length);
for (const name of failedChecks) console.log(`Failed, beside the tests: ${name} (see above).`);
console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
process.exitCode = failed === 0 ? 0 : 1;

/** Runs a checker to its end; says its output only where it found something. */
async function check(name, args) {
  const { code, output } = await run(process.execPath, args, projectRoot);
  console.log(code === 0 ? `${name}: fine` : `${output}\n${name}: failed`);
  if (code !== 0) failedChecks.push(name);
}

/** Runs a program of node on this terminal; resolves to its exit code. */
function show(args) {
  return new Promise(resolve => {
    const child = spawn(process.execPath, args, { cwd: projectRoot, stdio: 'inherit' });
    child.once('error', error => {
      console.log(error.message);
      resolve(1);
    });
    child.once('exit', code => resolve(code ?? 1));
  });
}

/** Some tests need programs of Debian packages; elsewhere than on a Debian as root they are skipped, and say so. */
async function systemPackages() {
  if (process.platform !== 'linux') return;
  const wanted = [
    { tests: 'with network namespaces', command: 'ip', version: '-V', packages: ['iproute2'] },
    ...(process.arch === 'arm64' ? [] : FOREIGN),
  ];
  const answers = await Promise.all(
    wanted.map(({ command, version }) => run(command, [version], projectRoot)),
  );
  const absent = wanted.filter((_, i) => answers[i].code !== 0);
  if (absent.length === 0) return;
  const packages = absent.flatMap(one => one.packages);
  const skipped = (one, reason) =>
    console.log(`Tests ${one.tests} are skipped: \`${one.command}\` is absent (${reason}).`);
  if (process.getuid() !== 0) {
    for (const one of absent) skipped(one, `Debian packages: ${one.packages.join(' ')}`);
    return;
  }
  console.log(`Installing the Debian packages ${packages.join(' ')} ...`);
  const limits = ['-o', 'Acquire::http::Timeout=15', '-o', 'Acquire::Retries=0'];
  const install = ['install', '-y', '--no-install-recommends', ...limits, ...packages];
  if ((await run('apt-get', install, projectRoot)).code === 0) return;
  await run('apt-get', ['update', ...limits], projectRoot);
  const { code, output } = await run('apt-get', install, projectRoot);
  if (code !== 0) for (const one of absent) skipped(one, output.split('\n').at(-1));
}
