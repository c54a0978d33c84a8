import { resolve } from 'node:path';
import type { Command } from 'commander';
import { PotluckError } from '../../errors/errors.ts';
import type { WeightFormat } from '../../pack/manifest.ts';
import { parseChoice, parseInteger } from '../option-values.ts';
import { formatBytes } from '../text-table.ts';

interface PackFlags {
  readonly out?: string;
  readonly weights: WeightFormat;
  readonly name?: string;
  readonly attentionParts?: number;
}

export const parseWeights = (text: string): WeightFormat => parseChoice('--weights', text, ['w4', 'bf16']);

export function addPackCommand(program: Command): void {
  program
    .command('pack')
    .summary('make a pack of a checkpoint')
    .description(
      'Turns a checkpoint into a pack, cut into tiles that devices can share. A checkpoint is a folder with config.json,\n' +
        '*.safetensors and a tokenizer, or a GGUF file. Then: potluck up --model FOLDER',
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
    .action(async (checkpoint: string, flags: PackFlags) => {
      const { nameOf, packCheckpoint, progressText } = await import('../pack-checkpoint.ts');
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
      const { tiles } = await packCheckpoint({
        checkpoint: resolve(checkpoint),
        target,
        name,
        weights: flags.weights,
        attentionParts: flags.attentionParts ?? null,
        ropePrecision: 'float32',
        onProgress: progress => line.show(progressText(progress)),
      });
      const bytes = tiles.reduce((sum, tile) => sum + tile.bytes, 0);
      line.end(`${name} (${flags.weights}): ${tiles.length} tiles, ${formatBytes(bytes)}`);
      process.stdout.write(`${target}\n`);
    });
}
