import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { PotluckError } from '../../errors/errors.ts';
import type { WeightFormat } from '../../pack/manifest.ts';
import { setExitCode } from '../exit-code.ts';
import { parseIntegers } from '../option-values.ts';
import { builtInModel, sharedFolder } from '../project.ts';
import { MOST_DEVICES, withDevices } from './emulation-flags.ts';
import { addEvalPerplexity } from './eval-perplexity-command.ts';
import { addEvalTokenizer } from './eval-tokenizer-command.ts';
import { parseWeights } from './pack-command.ts';

interface EvalFlags {
  readonly devices: number;
  readonly weights: WeightFormat;
  readonly json?: true;
}

const note = (line: string): void => void process.stderr.write(`${line}\n`);

/** Prints the report; an eval that did not pass makes the exit code 1. */
function report(json: unknown, lines: readonly string[], passed: boolean | null, asJson: boolean): void {
  process.stdout.write(asJson ? `${JSON.stringify(json, null, 2)}\n` : `${lines.join('\n')}\n`);
  if (passed === false) setExitCode(1);
}

const verdict = (passed: boolean | null): string => (passed === null ? '' : passed ? 'passed' : 'FAILED');

export function addEvalCommands(program: Command): void {
  const group = program
    .command('eval')
    .summary('compare what devices compute with reference values')
    .description('Compares what emulated devices compute with reference values, or with each other.');
  addGolden(group);
  addReference(group);
  addBits(group);
  addEvalPerplexity(group);
  addEvalTokenizer(group);
}

function addGolden(group: Command): void {
  withDevices(group.command('golden'), 2)
    .description('Logits and greedy tokens of a tiny checkpoint against the golden.json beside it.')
    .argument('<folder>', 'checkpoint folder or GGUF file with a golden.json beside it')
    .option('--weights <format>', 'bf16 is judged; w4 is reported', parseWeights, 'bf16')
    .option('--json', 'report as JSON')
    .action(async (folder: string, flags: EvalFlags) => {
      const { evalGolden } = await import('../eval/golden.ts');
      const { stopController } = await import('../emulate/with-emulation.ts');
      const result = await evalGolden(resolve(folder), flags.weights, flags.devices, stopController().signal);
      const lines = [
        `${result.model} (${result.weights}, ${result.devices} devices, RoPE frequencies ${result.rope}): largest logit error ` +
          `${result.largestError.toExponential(2)}, argmax equal ${(result.equalArgmax * 100).toFixed(1)} %, greedy ` +
          `${result.greedyEqual ? 'equal' : 'different'}  ${verdict(result.passed)}`.trimEnd(),
      ];
      report(result, lines, result.passed, flags.json === true);
    });
}

function addReference(group: Command): void {
  withDevices(group.command('reference'), 2)
    .description(
      'Logits, continuations and perplexities of a checkpoint against the reference.json beside it.',
    )
    .argument(
      '[folder]',
      'checkpoint folder or GGUF file with a reference.json beside it',
      sharedFolder('demo-model/weights'),
    )
    .option('--weights <format>', 'bf16 is judged; w4 is reported', parseWeights, 'bf16')
    .option('--texts <folder>', 'where the texts lie', sharedFolder('text'))
    .option('--json', 'report as JSON')
    .action(async (folder: string, flags: EvalFlags & { readonly texts: string }) => {
      const { evalReference } = await import('../eval/reference.ts');
      const { stopController } = await import('../emulate/with-emulation.ts');
      const { weights, devices, json } = flags;
      const options = {
        checkpoint: resolve(folder),
        weights,
        devices,
        texts: resolve(flags.texts),
        onProgress: note,
      };
      const result = await evalReference(options, stopController().signal);
      const lines = [
        `${weights}, ${devices} devices: largest logit error ${result.largestLogitError.toExponential(2)}; of ` +
          `${result.prompts} prompts, argmax equal ${result.equalArgmax}, continuation equal ${result.greedyEqual}`,
        ...result.perplexity.map(
          ({ text, expected, measured, difference }) =>
            `${text}: perplexity ${measured.toFixed(3)}, reference ${expected} (${(difference * 100).toFixed(2)} %)`,
        ),
        ...result.skipped.map(text => `${text}: skipped`),
        verdict(result.passed),
      ].filter(line => line !== '');
      report(result, lines, result.passed, json === true);
    });
}

/** With the checkpoint both weight formats are compared; a clone alone has the w4 pack. */
function defaultBitsModel(): string {
  const checkpoint = sharedFolder('demo-model/weights');
  if (existsSync(checkpoint)) return checkpoint;
  note(`bf16 is skipped: its checkpoint is not at ${checkpoint}`);
  return builtInModel();
}

function addBits(group: Command): void {
  group
    .command('bits')
    .description('Whether clusters of several sizes, shares and thread counts give the same bits.')
    .option(
      '--devices <a,b,...>',
      'cluster sizes',
      text => parseIntegers('--devices', text, 1, MOST_DEVICES),
      [1, 2, 3, 4],
    )
    .option(
      '--model <folder>',
      'a pack; or a checkpoint, of which w4 and bf16 packs are made (default: the checkpoint of the built-in model, or its pack)',
    )
    .option('--json', 'report as JSON')
    .action(async (flags: { devices: number[]; model?: string; json?: true }) => {
      const { evalBits } = await import('../eval/bits.ts');
      const { stopController } = await import('../emulate/with-emulation.ts');
      const model = flags.model === undefined ? defaultBitsModel() : resolve(flags.model);
      if (!existsSync(model))
        throw new PotluckError('PACK_NOT_FOUND', `${model} does not exist: give a folder with --model`);
      const result = await evalBits(
        model,
        flags.devices,
        row => note(`${row.weights}  ${row.logits.slice(0, 16)}  ${row.tokens.slice(0, 16)}  ${row.cluster}`),
        stopController().signal,
      );
      const line = result.passed ? 'All clusters give the same bits.' : 'The bits DIFFER.';
      report(result, [line], result.passed, flags.json === true);
    });
}
