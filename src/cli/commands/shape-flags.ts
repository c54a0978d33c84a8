import type { Command } from 'commander';
import { parseInteger } from '../option-values.ts';

/** Which synthetic pack a bench runs on. */
export interface ShapeFlags {
  readonly shape: string;
  readonly seed: number;
  readonly storedLayers?: number;
}

export function withShape(command: Command): Command {
  return command
    .option('--shape <name>', 'shape of a public model, of models/shapes.txt', 'llama-3.2-1b')
    .option('--seed <n>', 'seed of its weights', text => parseInteger('--seed', text, 0, 2 ** 32 - 1), 1)
    .option(
      '--stored-layers <n>',
      'layers with bytes of their own on disk; the others are these again (default: all)',
      text => parseInteger('--stored-layers', text, 1, 1024),
    );
}
