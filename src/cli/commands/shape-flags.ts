import type { Command } from 'commander';
import { MOST_THREADS } from '../../kernels/backend.ts';
import { defaultThreads } from '../default-threads.ts';
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

/** What a bench of whole passes is given. */
export interface PassFlags extends ShapeFlags {
  readonly model?: string;
  readonly threads: number;
  readonly runs: number;
  readonly json?: true;
}

export function withPasses(command: Command, runs: number): Command {
  return withJson(withRuns(withShape(command), runs))
    .option('--model <folder>', 'a pack instead of a synthetic one')
    .option(
      '--threads <n>',
      'threads that compute (default: the cores)',
      text => parseInteger('--threads', text, 1, MOST_THREADS),
      defaultThreads(),
    );
}

export const withRuns = (command: Command, runs: number): Command =>
  command.option(
    '--runs <n>',
    'runs, of which the median counts',
    text => parseInteger('--runs', text, 1, 100),
    runs,
  );

export const withJson = (command: Command): Command => command.option('--json', 'report as JSON');
