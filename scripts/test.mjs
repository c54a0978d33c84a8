#!/usr/bin/env node
// Everything that says whether the project is sound: format and lint, types, tests. The last line sums up.

import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { projectRoot, run, setupOrExit } from './setup.mjs';
import { sumUp } from './test-summary.mjs';

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

/** Some tests make network namespaces with `ip`; elsewhere than on a Debian as root they are skipped, and say so. */
async function systemPackages() {
  if (process.platform !== 'linux') return;
  if ((await run('ip', ['-V'], projectRoot)).code === 0) return;
  const skipped = 'Tests with network namespaces are skipped';
  if (process.getuid() !== 0) return console.log(`${skipped}: \`ip\` is absent (Debian package iproute2).`);
  console.log('Installing the Debian package iproute2 ...');
  const limits = ['-o', 'Acquire::http::Timeout=15', '-o', 'Acquire::Retries=0'];
  const install = ['install', '-y', '--no-install-recommends', ...limits, 'iproute2'];
  if ((await run('apt-get', install, projectRoot)).code === 0) return;
  await run('apt-get', ['update', ...limits], projectRoot);
  const { code, output } = await run('apt-get', install, projectRoot);
  if (code !== 0) console.log(`${skipped}: iproute2 was not installed: ${output.split('\n').at(-1)}`);
}
