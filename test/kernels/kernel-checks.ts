import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
// @ts-expect-error: a script without types
import * as addonBuild from '../../scripts/build-addon.mjs';

const { FILE_FLAGS, FLAGS } = addonBuild as {
  readonly FILE_FLAGS: Readonly<Record<Processor, Readonly<Record<string, readonly string[]>>>>;
  readonly FLAGS: readonly string[];
};

export type Processor = 'x64' | 'arm64';

const root = fileURLToPath(new URL('../../', import.meta.url));
const kernels = join(root, 'src/kernels/native');
const disk = join(root, 'src/disk-io/native');
const checks = join(root, 'test/kernels/native');

const SOURCES: Record<Processor, readonly string[]> = {
  x64: ['kernels_avx2.cc', 'kernels_avxvnni.cc', 'kernels_avx512vnni.cc'],
  arm64: ['kernels_neon.cc', 'kernels_neon_dot.cc', 'kernels_neon_i8mm.cc'],
};

/** Few processors have AVX-VNNI; many more have its instructions as part of AVX-512. */
const EVEX = ['-mavx2', '-mfma', '-mf16c', '-mavx512vnni', '-mavx512vl', '-mprefer-vector-width=256'];
const AS_EVEX = '-DPOTLUCK_AVX_VNNI_AS_EVEX';

const compilerOf = (processor: Processor): string => {
  if (processor === process.arch) return process.env.CXX ?? 'g++';
  return processor === 'arm64' ? 'aarch64-linux-gnu-g++' : 'x86_64-linux-gnu-g++';
};

function flagsOf(processor: Processor, name: string): readonly string[] {
  const own = name === 'kernels_avxvnni.cc' ? EVEX : (FILE_FLAGS[processor][name] ?? []);
  const names = processor === 'x64' ? [AS_EVEX] : [];
  return [...FLAGS.filter(flag => flag !== '-O3'), '-O2', `-I${kernels}`, `-I${disk}`, ...names, ...own];
}

interface Ended {
  /** Exit code; null where there is no such program. */
  readonly code: number | string | null;
  readonly output: string;
}

export const runProgram = (command: string, args: readonly string[]): Promise<Ended> =>
  new Promise(resolve => {
    const limits = { timeout: 120_000, maxBuffer: 1 << 24 };
    execFile(command, args, limits, (error, stdout, stderr) => {
      const absent = error !== null && error.code === 'ENOENT';
      const code = error === null ? 0 : absent ? null : (error.code ?? error.signal ?? 1);
      resolve({ code, output: `${stdout}${stderr}` });
    });
  });

/** Everything that the program is made from. */
function fingerprint(processor: Processor, version: string): string {
  const hash = createHash('sha256').update(version);
  for (const folder of [kernels, disk, checks])
    for (const name of readdirSync(folder).sort())
      hash
        .update(name)
        .update(readFileSync(join(folder, name)))
        .update(flagsOf(processor, name).join(' '));
  return hash.digest('hex').slice(0, 16);
}

/**
 * Compiles test/kernels/native with the kernels of that processor, unless that was done before; resolves to the program's path, or
 * to null where there is no compiler. Throws what the compiler said.
 */
export async function buildChecks(processor: Processor): Promise<string | null> {
  const compiler = compilerOf(processor);
  const version = await runProgram(compiler, ['--version']);
  if (version.code === null) return null;
  const folder = join(root, 'build/kernel-checks', `${processor}-${fingerprint(processor, version.output)}`);
  const program = join(folder, 'check-kernels');
  if (existsSync(program)) return program;
  const all = dirname(folder);
  mkdirSync(all, { recursive: true });
  for (const name of readdirSync(all)) // of earlier sources
    if (name.startsWith(`${processor}-`)) rmSync(join(all, name), { recursive: true });
  mkdirSync(folder);
  const named = ['reference.cc', 'variants.cc', 'cpu_features.cc', ...SOURCES[processor]];
  const harness = readdirSync(checks).filter(name => name.endsWith('.cc'));
  const sources = [
    ...named.map(name => join(kernels, name)),
    ...['crc32c.cc', 'crc32c_sse42.cc', 'crc32c_vpclmul.cc', 'crc32c_arm.cc'].map(name => join(disk, name)),
    ...harness.map(name => join(checks, name)),
  ];
  const objectOf = (source: string) => join(folder, `${basename(source)}.o`);
  const queue = [...sources];
  const worker = async () => {
    for (let source = queue.shift(); source !== undefined; source = queue.shift())
      await compile(compiler, [
        ...flagsOf(processor, basename(source)),
        '-c',
        source,
        '-o',
        objectOf(source),
      ]);
  };
  await Promise.all([worker(), worker()]);
  await compile(compiler, ['-static', ...sources.map(objectOf), '-o', program]);
  return program;
}

async function compile(compiler: string, args: readonly string[]): Promise<void> {
  const { code, output } = await runProgram(compiler, args);
  if (code !== 0) throw new Error(`${compiler} ${args.join(' ')}: ${output}`);
}
