import { resolve } from 'node:path';
import type { Command } from 'commander';
import { setExitCode } from '../exit-code.ts';

interface TokenizerFlags {
  readonly vectors: string;
  readonly json?: true;
}

export function addEvalTokenizer(group: Command): void {
  group
    .command('tokenizer')
    .description(
      'Encodes the texts of BASE.inp (each followed by a line __ggml_vocab_test__) and compares with the ids of BASE.out.',
    )
    .argument('<file>', 'tokenizer.json, tokenizer.model, GGUF file, or a folder that has one')
    .requiredOption('--vectors <base>', 'path of the two files without .inp and .out')
    .option('--json', 'report as JSON')
    .action(async (file: string, flags: TokenizerFlags) => {
      const { evalTokenizer } = await import('../eval/tokenizer.ts');
      const report = await evalTokenizer(resolve(file), resolve(flags.vectors));
      const { cases, equal, different } = report;
      const lines = [
        ...different.map(
          ({ text, ids, got }) =>
            `${JSON.stringify(text)}\n  expected ${ids.join(' ')}\n  got      ${got.join(' ')}`,
        ),
        `${equal} of ${cases} cases agree`,
      ];
      process.stdout.write(flags.json ? `${JSON.stringify(report, null, 2)}\n` : `${lines.join('\n')}\n`);
      if (equal !== cases) setExitCode(1);
    });
}
