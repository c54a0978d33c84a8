import * as fileSystem from 'node:fs/promises';
import { rm, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { releaseLock, takeLock } from '../daemon/process-lock.ts';
import { TIMERS } from '../daemon/timers.ts';
import { PotluckError } from '../errors/errors.ts';
import { findArchitecture } from '../model/architectures.ts';
import { describeError, makeFolder, writing } from '../pack/file-system.ts';
import type { Manifest, WeightFormat } from '../pack/manifest.ts';
import { PACK_NAME } from '../pack/read-manifest.ts';
import type { ChosenFiles } from '../pull/choose-files.ts';
import { type PulledFiles, pullFiles } from '../pull/pull-files.ts';
import type { RepoName } from '../pull/repo-name.ts';
import { downloadsFolder, modelsFolder } from './home-folder.ts';
import { installedModel } from './installed-models.ts';
import { packCheckpoint, readJson } from './pack-checkpoint.ts';
import { PackProgress } from './pack-progress.ts';
import { ProgressLine } from './progress-line.ts';
import { PullProgress } from './pull-progress.ts';
import { formatBytes } from './text-table.ts';

export interface PullOptions {
  readonly repo: RepoName;
  /** Name of the model here. */
  readonly name: string;
  readonly weights: WeightFormat;
  /** Leaves the checkpoint where it was downloaded to. */
  readonly keep: boolean;
  readonly home: string;
  readonly endpoint: string;
  readonly token: string | null;
}

type Output = { write(text: string): unknown; readonly isTTY?: boolean };

/**
 * Fetches a model and makes a pack of it; resolves to the folder of the pack. What was fetched stays where it fails, and the next call
 * goes on from there. Rejects with what pullFiles and packCheckpoint do, DISK_FULL, BAD_OPTION or BUSY.
 */
export async function pull(options: PullOptions, output: Output, signal: AbortSignal): Promise<string> {
  const { repo, name, home, weights } = options;
  if (!PACK_NAME.test(name))
    throw new PotluckError(
      'BAD_OPTION',
      `--name ${JSON.stringify(name)} is not 1 to 100 letters, digits, dots, dashes or underscores`,
    );
  const target = join(modelsFolder(home), name);
  const present = await installedModel(modelsFolder(home), name);
  if (present !== null) {
    refuseOther(present, options);
    output.write(`${name} is here already. To pull it anew: potluck models remove ${name}\n`);
    return target;
  }
  const folder = join(downloadsFolder(home), folderName(repo));
  const lock = `${folder}.lock`;
  await makeDownloads(home);
  const owner = takeLock(lock);
  if (owner !== null)
    throw new PotluckError(
      'BUSY',
      `${repo.repo} is being pulled already (process ${owner}). Wait for it, or end it`,
    );
  try {
    const files = await fetchFiles(options, folder, output, signal);
    const manifest = await pack(options, folder, files, output);
    if (options.keep) output.write(`The checkpoint stays in ${folder}\n`);
    else await writing(folder, () => rm(folder, { recursive: true, force: true }));
    const bytes = manifest.tiles.reduce((sum, tile) => sum + tile.bytes, manifest.embedding.bytes);
    output.write(
      `${name} (${weights}): ${manifest.tiles.length} tiles, ${formatBytes(bytes)}. Serve it: potluck up --model ${name}\n`,
    );
    return target;
  } finally {
    releaseLock(lock);
  }
}

function refuseOther(present: Manifest, { repo, name, weights }: PullOptions): void {
  const { repo: from, revision, file } = present.origin ?? {};
  const same =
    from === repo.repo &&
    revision === repo.revision &&
    (file ?? null) === repo.file &&
    present.shape.weights === weights;
  if (same) return;
  throw new PotluckError(
    'BAD_OPTION',
    `There is another model named ${name} here (${from ?? 'packed here'}, ${present.shape.weights}). Give this one another name with ` +
      `--name, or remove that one: potluck models remove ${name}`,
  );
}

/** 'owner/name' and a revision as one name: 'owner--name@revision'. */
const folderName = ({ repo, revision, file }: RepoName): string =>
  `${repo.replace('/', '--')}@${revision.replaceAll('/', '--')}${file === null ? '' : `--${file.replaceAll('/', '--')}`}`;

async function fetchFiles(
  options: PullOptions,
  folder: string,
  output: Output,
  signal: AbortSignal,
): Promise<PulledFiles> {
  const { repo, endpoint, token } = options;
  return pullFiles({
    name: repo,
    endpoint,
    token,
    fetch,
    timers: TIMERS,
    fileSystem,
    folder,
    signal,
    report: new PullProgress(output, () => TIMERS.now()),
    accept: async ({ format, weightBytes, hereBytes }) => {
      if (format === 'safetensors') {
        const path = join(folder, 'config.json');
        const config = await readJson(path);
        findArchitecture(config, path).readConfig(config, path);
      }
      await checkSpace(options, format, weightBytes, hereBytes);
    },
  });
}

async function makeDownloads(home: string): Promise<void> {
  try {
    await makeFolder(fileSystem, downloadsFolder(home));
  } catch (error) {
    throw new PotluckError(
      'DISK_WRITE',
      `${home}: cannot keep what is pulled: ${describeError(error)}. Choose another with POTLUCK_HOME`,
      { cause: error },
    );
  }
}

/** Bytes of a pack for each byte of weights, about: most checkpoints have two bytes a weight, GGUF files some half. */
const PACK_PART: Record<ChosenFiles['format'], Record<WeightFormat, number>> = {
  safetensors: { w4: 0.4, bf16: 1.1 },
  gguf: { w4: 1.3, bf16: 4 },
};

async function checkSpace(
  { home, weights, repo }: PullOptions,
  format: ChosenFiles['format'],
  weightBytes: number,
  hereBytes: number,
): Promise<void> {
  const { bavail, bsize } = await statfs(home);
  const free = bavail * bsize;
  const missing = Math.max(0, weightBytes - hereBytes);
  const needed = missing + weightBytes * PACK_PART[format][weights];
  if (free >= needed) return;
  throw new PotluckError(
    'DISK_FULL',
    `${repo.repo} needs about ${formatBytes(needed)} at ${home} (${formatBytes(missing)} to download, the rest for the pack), and ` +
      `${formatBytes(free)} are free. Free some, or set POTLUCK_HOME to a folder on a larger disk`,
  );
}

async function pack(
  { repo, name, home, weights }: PullOptions,
  folder: string,
  { format, weights: weightFiles, commit }: PulledFiles,
  output: Output,
): Promise<Manifest> {
  const line = new ProgressLine(output);
  const shown = new PackProgress();
  const manifest = await packCheckpoint({
    checkpoint: format === 'gguf' ? join(folder, weightFiles[0]!) : folder,
    target: join(modelsFolder(home), name),
    name,
    weights,
    attentionParts: null,
    ropePrecision: 'float32',
    origin: {
      repo: repo.repo,
      revision: repo.revision,
      ...(commit === null ? {} : { commit }),
      ...(repo.file === null ? {} : { file: repo.file }),
    },
    onProgress: progress => shown.show(line, progress),
  });
  line.end('Packed');
  return manifest;
}
