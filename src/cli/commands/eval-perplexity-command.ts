import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { PotluckError } from '../../errors/errors.ts';
import type { ActivationLevels } from '../../model/quantizer/level-blocks.ts';
import type { WeightFormat } from '../../pack/manifest.ts';
import type { PerplexityRow } from '../eval/perplexity-report.ts';
import { parseChoice, parseInteger } from '../option-values.ts';
import { ProgressLine } from '../progress-line.ts';
import { builtInModel, sharedFolder } from '../project.ts';
import { textTable } from '../text-table.ts';
import { parseActivations, parseWeights } from './pack-command.ts';

interface PerplexityFlags {
  readonly text?: string[];
  readonly reference?: string;
  readonly weights: WeightFormat;
  readonly activations?: ActivationLevels;
  readonly kv?: 4 | 8 | 16;
  readonly windows: number;
  readonly window: number;
  readonly calibrate?: string;
  readonly json?: true;
}

export function addEvalPerplexity(group: Command): void {
  group
    .command('perplexity')
    .summary('how much worse 4 bits make the predictions of a text')
    .description(
      'Perplexity on texts, rise over bf16 and mean KL divergence from it. Of a checkpoint packs are made: bf16, and w4 with\n' +
        'activations in 8 bits, mixed, and in 4 bits. A pack is measured as it is; name its checkpoint with --reference.',
    )
    .argument('[model]', 'checkpoint or pack (default: the built-in model)')
    .option(
      '--text <file...>',
      'texts; the first 300,000 characters of each are read (default: ../shared/text)',
    )
    .option('--reference <checkpoint>', 'what a pack is compared with')
    .option('--weights <format>', 'of the packs of a checkpoint', parseWeights, 'w4')
    .option('--activations <levels>', 'a8, mixed or a4 (default: all; of a pack: its own)', parseActivations)
    .option('--kv <bits>', '4, 8 or 16 bits for keys and values (default: those of the pack)', text =>
      Number(parseChoice('--kv', text, ['4', '8', '16'])),
    )
    .option(
      '--windows <n>',
      'windows of each text, at most',
      text => parseInteger('--windows', text, 1, 10_000),
      40,
    )
    .option(
      '--window <tokens>',
      'predictions of a window',
      text => parseInteger('--window', text, 1, 4096),
      512,
    )
    .option('--calibrate <file>', 'text that packs are calibrated on')
    .option('--json', 'report as JSON')
    .action(async (model: string | undefined, flags: PerplexityFlags) => {
      const { evalPerplexity } = await import('../eval/perplexity-eval.ts');
      const line = new ProgressLine();
      const rows = await evalPerplexity({
        model: resolve(model ?? builtInModel()),
        texts: (flags.text ?? defaultTexts()).map(file => resolve(file)),
        reference: flags.reference === undefined ? null : resolve(flags.reference),
        weights: flags.weights,
        activations: flags.activations ?? null,
        kvBits: flags.kv ?? null,
        windows: flags.windows,
        window: flags.window,
        calibrationFile: flags.calibrate === undefined ? null : resolve(flags.calibrate),
        onProgress: text => line.show(text),
      });
      line.end('');
      const text = flags.json === true ? JSON.stringify(rows, null, 2) : perplexityTable(rows).join('\n');
      process.stdout.write(`${text}\n`);
    });
}

function defaultTexts(): string[] {
  const texts = ['book-heldout.txt', 'wikitext2-test.txt'].map(name => sharedFolder(`text/${name}`));
  const found = texts.filter(file => existsSync(file));
  if (found.length > 0) return found;
  throw new PotluckError('BAD_OPTION', 'There is no text to measure: give one with --text FILE.');
}

/** A row for each model and text. */
function perplexityTable(rows: readonly PerplexityRow[]): string[] {
  const percent = (value: number | null) =>
    value === null ? '' : `${value < 0 ? '' : '+'}${(value * 100).toFixed(2)} %`;
  const cells = rows.flatMap(row =>
    row.texts.map(text => [
      row.label,
      String(row.kvBits),
      `${(row.multiplyAddsInA4 * 100).toFixed(1)} %`,
      text.text,
      text.perplexity.toFixed(3),
      percent(text.rise),
      text.divergence === null ? '' : text.divergence.toFixed(5),
    ]),
  );
  return textTable([['model', 'KV bits', 'in A4', 'text', 'perplexity', 'rise', 'KL from bf16'], ...cells]);
}
