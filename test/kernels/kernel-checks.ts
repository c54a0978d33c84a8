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
/** Whose kernels to compile: a processor's, or those of all x64 for one with AVX2 (test/kernels/native/emulated_avx512.h). */
export type Target = Processor | 'emulated-x64';

const root = fileURLToPath(new URL('../../', import.meta.url));
const kernels = join(root, 'src/kernels/native');
const disk = join(root, 'src/disk-io/native');
const checks = join(root, 'test/kernels/native');

const SOURCES: Record<Processor, readonly string[]> = {
  x64: ['kernels_avx2.cc', 'kernels_avxvnni.cc', 'kernels_avx512vnni.cc'],
  arm64: ['kernels_neon.cc', 'kernels_neon_dot.cc', 'kernels_neon_i8mm.cc'],
};

const AVX2 = ['-mavx2', '-mfma', '-mf16c'];
/** Few processors have AVX-VNNI; many more have its instructions as part of AVX-512. */
const EVEX = [...AVX2, '-mavx512vnni', '-mavx512vl', '-mprefer-vector-width=256'];
const AS_EVEX = '-DPOTLUCK_AVX_VNNI_AS_EVEX';

/** Their run is shorter than their optimization would be. */
const BRIEF = [...AVX2, '-O0'];
const EMULATED = [...BRIEF, '-include', join(checks, 'emulated_avx512.h')];
const EMULATED_FLAGS: Readonly<Record<string, readonly string[]>> = {
  'kernels_avx2.cc': BRIEF,
  'kernels_avx512vnni.cc': EMULATED,
  'kernels_avxvnni.cc': EMULATED,
  // Emulated, they need no more than that.
  'variants.cc': ['-Dlacks_avx512_vnni=lacks_avx2', '-Dlacks_avx_vnni=lacks_avx2'],
};

const processorOf = (target: Target): Processor => (target === 'emulated-x64' ? 'x64' : target);

const compilerOf = (processor: Processor): string => {
  if (processor === process.arch) return process.env.CXX ?? 'g++';
  return processor === 'arm64' ? 'aarch64-linux-gnu-g++' : 'x86_64-linux-gnu-g++';
};

function ownFlags(target: Target, name: string): readonly string[] {
  const usual = FILE_FLAGS[processorOf(target)][name] ?? [];
  if (target === 'emulated-x64') return EMULATED_FLAGS[name] ?? usual;
  if (target === 'x64') return [AS_EVEX, ...(name === 'kernels_avxvnni.cc' ? EVEX : usual)];
  return usual;
}

const flagsOf = (target: Target, name: string): readonly string[] => [
  ...FLAGS.filter(flag => flag !== '-O3'),
  ...['-O2', `-I${kernels}`, `-I${disk}`],
  ...ownFlags(target, name),
];

export interface Ended {
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
function fingerprint(target: Target, version: string): string {
  const hash = createHash('sha256').update(version);
  for (const folder of [kernels, disk, checks])
    for (const name of readdirSync(folder).sort())
      hash
        .update(name)
        .update(readFileSync(join(folder, name)))
        .update(flagsOf(target, name).join(' '));
  return hash.digest('hex').slice(0, 16);
}

/**
 * Compiles test/kernels/native with the kernels of that target, unless that was done before; resolves to the program's path, or
 * to null where there is no compiler. Throws what the compiler said.
 */
export async function buildChecks(target: Target): Promise<string | null> {
  const compiler = compilerOf(processorOf(target));
  const version = await runProgram(compiler, ['--version']);
  if (version.code === null) return null;
  const folder = join(root, 'build/kernel-checks', `${target}-${fingerprint(target, version.output)}`);
  const program = join(folder, 'check-kernels');
  if (existsSync(program)) return program;
  const all = dirname(folder);
  mkdirSync(all, { recursive: true });
  for (const name of readdirSync(all)) // of earlier sources
    if (name.startsWith(`${target}-`)) rmSync(join(all, name), { recursive: true });
  mkdirSync(folder);
  const named = ['reference.cc', 'variants.cc', 'cpu_features.cc', ...SOURCES[processorOf(target)]];
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
      await compile(compiler, [...flagsOf(target, basename(source)), '-c', source, '-o', objectOf(source)]);
  };
  await Promise.all([worker(), worker()]);
  await compile(compiler, ['-static', ...sources.map(objectOf), '-o', program]);
  return program;
}

async function compile(compiler: string, args: readonly string[]): Promise<void> {
  const { code, output } = await runProgram(compiler, args);
  if (code !== 0) throw new Error(`${compiler} ${args.join(' ')}: ${output}`);
}
