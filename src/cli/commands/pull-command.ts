import type { Command } from 'commander';
import { PotluckError } from '../../errors/errors.ts';
import type { WeightFormat } from '../../pack/manifest.ts';
import { isSafePath, parseRepoName, type RepoName } from '../../pull/repo-name.ts';
import { stopController } from '../emulate/with-emulation.ts';
import { homeFolder } from '../home-folder.ts';
import { parseUrl } from '../option-values.ts';
import { parseWeights } from './pack-command.ts';

interface PullFlags {
  readonly file?: string;
  readonly weights: WeightFormat;
  readonly name?: string;
  readonly keep?: true;
}

const HUB = 'https://huggingface.co';

export function addPullCommand(program: Command): void {
  program
    .command('pull')
    .summary('fetch a model and make a pack of it')
    .description(
      'Fetches a model from the Hugging Face Hub, checks it, and makes a pack of it. What was fetched is kept when it is\n' +
        'interrupted: the same command goes on. Then: potluck up --model NAME\n' +
        'HF_TOKEN: token for private and gated models. HF_ENDPOINT: another server. POTLUCK_HOME: where models are kept.',
    )
    .argument('<repo>', 'OWNER/NAME, OWNER/NAME@REVISION or OWNER/NAME/FILE.gguf')
    .option('--file <file.gguf>', 'one GGUF file of the repository')
    .option('--weights <format>', 'w4: 4 bits a weight; bf16: as they are', parseWeights, 'w4')
    .option('--name <name>', 'name of the model here (default: that of the repository or file)')
    .option('--keep', 'keep the downloaded checkpoint, too')
    .action(async (text: string, flags: PullFlags) => {
      const repo = repoOf(text, flags.file);
      const { pull } = await import('../pull.ts');
      const { env } = process;
      const stopped = stopController();
      const options = {
        repo,
        name: flags.name ?? nameOf(repo),
        weights: flags.weights,
        keep: flags.keep === true,
        home: homeFolder(env),
        endpoint: parseUrl('HF_ENDPOINT', env.HF_ENDPOINT || HUB),
        token: env.HF_TOKEN || null,
      };
      const folder = await pull(options, process.stderr, stopped.signal).catch((error: unknown) => {
        if (!stopped.signal.aborted) throw error;
        throw new PotluckError('STOPPED', 'Stopped: the same command goes on from here');
      });
      process.stdout.write(`${folder}\n`);
    });
}

function repoOf(text: string, file: string | undefined): RepoName {
  const repo = parseRepoName(text);
  if (file === undefined) return repo;
  if (repo.file === null && isSafePath(file) && file.toLowerCase().endsWith('.gguf'))
    return { ...repo, file };
  throw new PotluckError(
    'BAD_OPTION',
    `--file ${JSON.stringify(file)} is not allowed: give one name of a .gguf file`,
  );
}

/** 'Qwen/Qwen3-0.6B' -> 'Qwen3-0.6B'; of a file, its own name. */
const nameOf = ({ repo, file }: RepoName): string =>
  file === null ? repo.split('/').at(-1)! : file.split('/').at(-1)!.slice(0, -'.gguf'.length);
