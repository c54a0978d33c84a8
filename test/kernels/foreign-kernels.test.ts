import { beforeAll, describe, expect, it } from 'vitest';
import { buildChecks, type Ended, type Processor, runProgram } from './kernel-checks.ts';

/** Names of an emulator for programs of 64-bit Arm. */
const EMULATORS = ['qemu-aarch64', 'qemu-aarch64-static'];
const FUNCTIONS = 18;
const COMPILE = 240_000;

interface Checked {
  /** Variants that ran, with their numbers of functions, calls, values and differences. */
  readonly ran: ReadonlyMap<string, readonly number[]>;
  /** Variants of CRC-32C besides the table. */
  readonly checksums: readonly string[];
  /** Hash of the reference's results. */
  readonly reference: string;
}

const check = async (command: string, args: readonly string[]): Promise<Checked> =>
  read(await runProgram(command, args));

function read({ code, output }: Ended): Checked {
  expect(code, output).toBe(0);
  const ran = new Map<string, number[]>();
  const line = /^(\S+): (\d+) functions, (\d+) calls, (\d+) values, (\d+) differ$/gm;
  for (const [, name, ...numbers] of output.matchAll(line)) ran.set(name!, numbers.map(Number));
  for (const [name, [functions, calls, values, different]] of ran) {
    expect({ name, functions, different }).toEqual({ name, functions: FUNCTIONS, different: 0 });
    expect(calls).toBeGreaterThan(1000);
    expect(values).toBeGreaterThan(1_000_000);
  }
  const checksums = [...output.matchAll(/^crc32c (\S+): 64 calls, 0 differ$/gm)].map(([, name]) => name!);
  return { ran, checksums, reference: /^reference: (\w+)$/m.exec(output)?.[1] ?? '' };
}

async function findEmulator(): Promise<string | null> {
  for (const name of EMULATORS) if ((await runProgram(name, ['--version'])).code === 0) return name;
  return null;
}

/** What the reference gave on each processor. */
const references = new Map<string, string>();

function everywhereTheSame(name: string, { reference }: Checked): void {
  expect(reference).toMatch(/^[0-9a-f]{16}$/);
  references.set(name, reference);
  expect(Object.fromEntries(references)).toEqual(
    Object.fromEntries([...references.keys()].map(key => [key, reference])),
  );
}

describe('the kernels of this processor', () => {
  let program: string | null = null;
  beforeAll(async () => {
    if (process.arch === 'x64' || process.arch === 'arm64') program = await buildChecks(process.arch);
  }, COMPILE);

  it('are those of the reference, to the ends of memory', async ctx => {
    if (program === null) {
      console.warn(`skipped: no compiler for ${process.arch}`);
      return ctx.skip();
    }
    const checked = await check(program, []);
    console.log(`kernels checked here: ${[...checked.ran.keys()].join(' ')}`);
    everywhereTheSame(process.arch, checked);
  });
});

describe('the kernels of other x86 processors, emulated', () => {
  let program: string | null = null;
  beforeAll(async () => {
    if (process.arch === 'x64') program = await buildChecks('emulated-x64');
  }, COMPILE);

  it('are those of the reference by means of AVX2', async ctx => {
    const skip = (reason: string) => {
      console.warn(`skipped, kernels of other x86 processors: ${reason}`);
      return ctx.skip();
    };
    if (program === null) return skip(process.arch === 'x64' ? 'no compiler' : `this is ${process.arch}`);
    const ended = await runProgram(program, []);
    const lacks = /^avx2: not run: (.+)$/m.exec(ended.output)?.[1];
    if (lacks !== undefined) return skip(lacks);
    const checked = read(ended);
    expect([...checked.ran.keys()]).toEqual(['avx512-vnni', 'avx-vnni', 'avx2']);
    everywhereTheSame('emulated x64', checked);
  });
});

describe('the kernels of Arm processors, emulated', () => {
  const foreign: Processor = 'arm64';
  let program: string | null = null;
  let emulator: string | null = null;
  beforeAll(async () => {
    if (process.arch === foreign) return;
    emulator = await findEmulator();
    if (emulator !== null) program = await buildChecks(foreign);
  }, COMPILE);

  it.for([
    ['cortex-a53', ['neon']],
    ['neoverse-n1', ['neon-dot', 'neon']],
    ['max', ['neon-i8mm', 'neon-dot', 'neon']],
  ] as const)('are those of the reference on a %s', async ([processor, expected], ctx) => {
    if (program === null || emulator === null) {
      const reason =
        process.arch === foreign
          ? 'this is one'
          : 'the Debian packages g++-aarch64-linux-gnu and qemu-user-static are absent';
      console.warn(`skipped, kernels of a ${processor}: ${reason}`);
      return ctx.skip();
    }
    const checked = await check(emulator, ['-cpu', processor, program]);
    expect(checked.checksums).toEqual(['arm-crc']);
    expect([...checked.ran.keys()]).toEqual(expected);
    everywhereTheSame(processor, checked);
  });
});
