import { resolve } from 'node:path';
import type { Command } from 'commander';
import { PotluckError } from '../../errors/errors.ts';
import type { ActivationLevels } from '../../model/quantizer/level-blocks.ts';
import type { WeightFormat } from '../../pack/manifest.ts';
import { parseBytes, parseChoice, parseInteger } from '../option-values.ts';
import type { RoundingMethod } from '../pack-checkpoint.ts';
import { INTERRUPTED, onStopSignal } from '../stop-signals.ts';
import { formatBytes } from '../text-table.ts';

interface PackFlags {
  readonly out?: string;
  readonly weights: WeightFormat;
  readonly name?: string;
  readonly attentionParts?: number;
  readonly activations: ActivationLevels;
  readonly rounding: RoundingMethod;
  readonly calibrate?: string;
  readonly memory?: number;
}

export const parseWeights = (text: string): WeightFormat => parseChoice('--weights', text, ['w4', 'bf16']);

export const parseActivations = (text: string): ActivationLevels =>
  parseChoice('--activations', text, ['a8', 'mixed', 'a4']);

const parseRounding = (text: string): RoundingMethod =>
  parseChoice('--rounding', text, ['inputs', 'nearest']);

export function addPackCommand(program: Command): void {
  program
    .command('pack')
    .summary('make a pack of a checkpoint')
    .description(
      'Turns a checkpoint into a pack, cut into tiles that devices can share. A checkpoint is a folder with config.json,\n' +
        '*.safetensors and a tokenizer, or a GGUF file. Then: potluck up --model FOLDER\n' +
        'An interrupted run goes on where it was when the same command is given again.',
    )
    .argument('<checkpoint>', 'folder of the checkpoint, or GGUF file')
    .option('--out <folder>', 'folder of the pack; must not exist yet (default: NAME-WEIGHTS, here)')
    .option('--weights <format>', 'w4: 4 bits a weight; bf16: as they are', parseWeights, 'w4')
    .option('--name <name>', 'name of the model (default: the name of its folder)')
    .option(
      '--attention-parts <n>',
      'tiles of one KV head, for more devices than heads (default: chosen)',
      text => parseInteger('--attention-parts', text, 1, 64),
    )
    .option(
      '--rounding <method>',
      'inputs: w4 weights by what a text makes of them; nearest: at once, less exact',
      parseRounding,
      'inputs',
    )
    .option(
      '--activations <levels>',
      'a8, a4, or mixed: 80 % of the multiply-adds in 4x4 bits',
      parseActivations,
      'a8',
    )
    .option('--calibrate <file>', 'the text (default: a small one of many kinds)')
    .option(
      '--memory <size>',
      'most memory of the whole process (default: what the system can spare)',
      text => parseBytes('--memory', text),
    )
    .action(async (checkpoint: string, flags: PackFlags) => {
      const { nameOf, packCheckpoint } = await import('../pack-checkpoint.ts');
      const { PackProgress } = await import('../pack-progress.ts');
      const { modelKind } = await import('../model-path.ts');
      const { ProgressLine } = await import('../progress-line.ts');
      if (modelKind(checkpoint) === 'pack')
        throw new PotluckError(
          'BAD_OPTION',
          `${checkpoint} is a pack already: potluck up --model ${checkpoint}`,
        );
      const name = flags.name ?? nameOf(checkpoint);
      const target = resolve(flags.out ?? `${name}-${flags.weights}`);
      const line = new ProgressLine();
      const shown = new PackProgress();
      // What is written is whole layers and a journal of them, or (without rounding by inputs) goes with the next run: there is nothing to close.
      const goesOn = flags.weights === 'w4' && flags.rounding === 'inputs';
      onStopSignal(() => {
        line.end(`Stopped. The same command ${goesOn ? 'goes on behind what is done' : 'begins anew'}.`);
        process.exit(INTERRUPTED);
      });
      const { tiles, origin } = await packCheckpoint({
        checkpoint: resolve(checkpoint),
        target,
        name,
        weights: flags.weights,
        attentionParts: flags.attentionParts ?? null,
        ropePrecision: 'float32',
        rounding: flags.rounding,
        activations: flags.activations,
        ...(flags.memory === undefined ? {} : { memoryBytes: flags.memory }),
        ...(flags.calibrate === undefined ? {} : { calibrationFile: resolve(flags.calibrate) }),
        onProgress: progress => shown.show(line, progress),
      });
      if (flags.weights === 'w4' && origin.rounding !== flags.rounding)
        line.end(
          `Weights were rounded to the nearest: rounding by inputs needs the native addon and the checkpoint's tokenizer.`,
        );
      const bytes = tiles.reduce((sum, tile) => sum + tile.bytes, 0);
      line.end(`${name} (${flags.weights}): ${tiles.length} tiles, ${formatBytes(bytes)}`);
      process.stdout.write(`${target}\n`);
    });
}
