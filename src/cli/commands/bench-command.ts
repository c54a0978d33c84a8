import { resolve } from 'node:path';
import type { Command } from 'commander';
import { parseInteger } from '../option-values.ts';
import { type EmulationFlags, emulationOptions, withDevices, withEmulation } from './emulation-flags.ts';
import { type ShapeFlags, withShape } from './shape-flags.ts';

export function addBenchCommand(program: Command): void {
  const group = program
    .command('bench')
    .summary('measure speed')
    .description('Measures speed on this machine.');
  addCluster(group);
  addPack(group);
}

const withJson = (command: Command): Command => command.option('--json', 'report as JSON');

interface ClusterFlags extends EmulationFlags {
  readonly tokens: number;
  readonly promptTokens: number;
  readonly runs: number;
  readonly json?: true;
}

function addCluster(group: Command): void {
  withJson(withEmulation(withDevices(group.command('cluster'), 2)))
    .description('Joining, first token, generation, prompts and links of emulated devices.')
    .option('--tokens <n>', 'tokens generated in a run', text => parseInteger('--tokens', text, 1, 4096), 64)
    .option(
      '--prompt-tokens <n>',
      'tokens of the long prompt',
      text => parseInteger('--prompt-tokens', text, 16, 1 << 17),
      256,
    )
    .option('--runs <n>', 'runs, of which the median counts', text => parseInteger('--runs', text, 1, 100), 3)
    .action(async (flags: ClusterFlags) => {
      const { benchCluster, benchText } = await import('../bench/bench-cluster.ts');
      const { stopController } = await import('../emulate/with-emulation.ts');
      const { tokens, promptTokens, runs } = flags;
      const options = { ...emulationOptions(flags), tokens, promptTokens, runs };
      const bench = await benchCluster(options, stopController().signal);
      process.stdout.write(`${flags.json ? JSON.stringify(bench, null, 2) : benchText(bench)}\n`);
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
