import { resolve } from 'node:path';
import type { Command } from 'commander';
import { MOST_THREADS } from '../../kernels/backend.ts';
import { parseBytes, parseInteger } from '../option-values.ts';
import { type EmulationFlags, emulationOptions, withDevices, withEmulation } from './emulation-flags.ts';
import { type PassFlags, type ShapeFlags, withJson, withPasses, withRuns, withShape } from './shape-flags.ts';

export function addBenchCommand(program: Command): void {
  const group = program
    .command('bench')
    .summary('measure speed')
    .description('Measures speed on this machine.');
  addKernels(group);
  addDecode(group);
  addPrompt(group);
  addCluster(group);
  addDrafts(group);
  addPack(group);
  addWindow(group);
}

/** The pack that flags name, and how often to measure on it. */
async function passInput({ model, threads, runs, ...shape }: PassFlags) {
  const { openModel } = await import('../bench/synthetic-model.ts');
  return { pack: await openModel(shape, model), options: { threads, runs } };
}

const print = (report: object, text: string, asJson: boolean): void =>
  void process.stdout.write(`${asJson ? JSON.stringify(report, null, 2) : text}\n`);

function addKernels(group: Command): void {
  withPasses(group.command('kernels'), 7)
    .description('Everything that kernels should be good at, each beside its limit, measured in turn.')
    .action(async (flags: PassFlags) => {
      const { benchKernels } = await import('../bench/bench-kernels.ts');
      const { kernelsText } = await import('../bench/bench-text.ts');
      const { stopController } = await import('../emulate/with-emulation.ts');
      const { pack, options } = await passInput(flags);
      const bench = await benchKernels({ ...options, pack, onProgress: note }, stopController().signal);
      print(bench, kernelsText(bench), flags.json === true);
    });
}

const note = (line: string): void => void process.stderr.write(`${line}\n`);

function addDecode(group: Command): void {
  withPasses(group.command('decode'), 15)
    .description('Tokens a second of one answer, beside what the memory of this machine allows.')
    .action(async (flags: PassFlags) => {
      const { benchDecode } = await import('../bench/bench-decode.ts');
      const { decodeText } = await import('../bench/bench-text.ts');
      const { pack, options } = await passInput(flags);
      const bench = await benchDecode(pack, options);
      print(bench, decodeText(bench), flags.json === true);
    });
}

function addPrompt(group: Command): void {
  withPasses(group.command('prompt'), 5)
    .description(
      'Multiply-adds a second of a prompt, beside the peak of the 8-bit dot products of this processor.',
    )
    .option('--tokens <n>', 'tokens of the prompt', text => parseInteger('--tokens', text, 1, 1 << 17), 512)
    .action(async (flags: PassFlags & { readonly tokens: number }) => {
      const { benchPrompt } = await import('../bench/bench-prompt.ts');
      const { promptText } = await import('../bench/bench-text.ts');
      const { pack, options } = await passInput(flags);
      const bench = await benchPrompt(pack, { ...options, tokens: flags.tokens });
      print(bench, promptText(bench), flags.json === true);
    });
}

interface ClusterFlags extends EmulationFlags {
  readonly tokens: number;
  readonly promptTokens: number;
  readonly runs: number;
  readonly json?: true;
}

function addCluster(group: Command): void {
  withJson(withRuns(withEmulation(withDevices(group.command('cluster'), 2)), 3))
    .description('Joining, first token, generation, prompts and links of emulated devices.')
    .option('--tokens <n>', 'tokens generated in a run', text => parseInteger('--tokens', text, 1, 4096), 64)
    .option(
      '--prompt-tokens <n>',
      'tokens of the long prompt',
      text => parseInteger('--prompt-tokens', text, 16, 1 << 17),
      256,
    )
    .action(async (flags: ClusterFlags) => {
      const { benchCluster, benchText } = await import('../bench/bench-cluster.ts');
      const { stopController } = await import('../emulate/with-emulation.ts');
      const { tokens, promptTokens, runs } = flags;
      const options = { ...(await emulationOptions(flags)), tokens, promptTokens, runs };
      const bench = await benchCluster(options, stopController().signal);
      print(bench, benchText(bench), flags.json === true);
    });
}

interface DraftFlags extends EmulationFlags {
  readonly tokens: number;
  readonly runs: number;
  readonly json?: true;
}

function addDrafts(group: Command): void {
  withJson(withRuns(withEmulation(withDevices(group.command('drafts'), 1)), 5))
    .description(
      'Tokens a second of answers whose next tokens are guessed from the text so far, and without that.',
    )
    .option('--tokens <n>', 'tokens of an answer', text => parseInteger('--tokens', text, 1, 4096), 200)
    .action(async (flags: DraftFlags) => {
      const { benchDrafts, draftsText } = await import('../bench/bench-drafts.ts');
      const { stopController } = await import('../emulate/with-emulation.ts');
      const { tokens, runs } = flags;
      const options = { ...(await emulationOptions(flags)), tokens, runs };
      const bench = await benchDrafts(options, stopController().signal);
      print(bench, draftsText(bench), flags.json === true);
    });
}

interface WindowFlags extends ShapeFlags {
  readonly memory?: number;
  readonly devices: number;
  readonly threads?: number;
  readonly runs: number;
  readonly seconds: number;
  readonly decodeOnly?: true;
  readonly json?: true;
}

function addWindow(group: Command): void {
  withJson(withDevices(withShape(group.command('window')), 1))
    .description(
      'A model bigger than memory: streamed bytes a second against what the disk gives, in a budget.',
    )
    .option(
      '--memory <size>',
      'most memory of each device, such as 400M (default: all that it needs)',
      text => parseBytes('--memory', text),
    )
    .option('--threads <n>', 'threads of each device (default: the cores, shared out)', text =>
      parseInteger('--threads', text, 1, MOST_THREADS),
    )
    .option(
      '--runs <n>',
      'runs, of which the median counts; at most 3 where a token takes over 2 s',
      text => parseInteger('--runs', text, 1, 100),
      9,
    )
    .option('--seconds <n>', 'about how long a run takes', text => parseInteger('--seconds', text, 1, 600), 2)
    .option('--decode-only', 'neither the prompt of 256 tokens nor the four requests at once')
    .action(async (flags: WindowFlags) => {
      const { benchWindow, windowText } = await import('../bench/bench-window.ts');
      const { openSyntheticModel } = await import('../bench/synthetic-model.ts');
      const { stopController } = await import('../emulate/with-emulation.ts');
      const { memory = null, devices, threads, runs, seconds, decodeOnly = false } = flags;
      const pack = await openSyntheticModel(flags, null);
      const say = (line: string): void => void process.stderr.write(`${line}\n`);
      const options = { pack, shape: flags.shape, memory, devices, runs, seconds, decodeOnly, say };
      const bench = await benchWindow(
        { ...options, ...(threads ? { threads } : {}) },
        stopController().signal,
      );
      process.stdout.write(`${flags.json ? JSON.stringify(bench, null, 2) : windowText(bench)}\n`);
    });
}

function addPack(group: Command): void {
  withShape(group.command('pack'))
    .description('Makes the synthetic pack of a shape, or finds it, and prints its folder: for `up --model`.')
    .option('--out <folder>', 'folder of the pack (default: one that the other benches use too)')
    .action(async (flags: ShapeFlags & { readonly out?: string }) => {
      const { openSyntheticModel } = await import('../bench/synthetic-model.ts');
      const pack = await openSyntheticModel(flags, flags.out === undefined ? null : resolve(flags.out));
      process.stdout.write(`${pack.folder}\n`);
    });
}
