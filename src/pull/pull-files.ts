import { join, posix } from 'node:path';
import { PotluckError } from '../errors/errors.ts';
import { type FileSystem, makeFolder, readWholeFile, writing } from '../pack/file-system.ts';
import { type ChosenFiles, chooseFiles, chooseShards, INDEX_FILE, type RepoFile } from './choose-files.ts';
import { downloadFile, sizeOf } from './download-file.ts';
import { listRepo } from './list-repo.ts';
import type { RepoName } from './repo-name.ts';
import { type PullTimers, RepoRequests } from './repo-requests.ts';

export interface PullFilesOptions {
  readonly name: RepoName;
  /** See RepoRequestsOptions. */
  readonly endpoint: string;
  readonly token: string | null;
  readonly fetch: typeof fetch;
  readonly timers: PullTimers;
  readonly fileSystem: FileSystem;
  /** Where the files go; an earlier run's are there still. */
  readonly folder: string;
  readonly signal: AbortSignal;
  readonly report: PullReport;
  /** Called with the small files on disk, before the weights are fetched; throws where the model is of no use. */
  readonly accept: (found: FoundWeights) => Promise<void>;
}

export interface FoundWeights {
  readonly format: ChosenFiles['format'];
  readonly weightBytes: number;
  /** Of those, what an earlier run left. */
  readonly hereBytes: number;
}

export interface PullReport {
  listed(files: readonly RepoFile[]): void;
  /** Bytes of a file that are here; `kept`: since before this run. */
  bytes(file: RepoFile, here: number, kept: boolean): void;
  note(text: string): void;
}

export interface PulledFiles {
  readonly format: ChosenFiles['format'];
  /** Names in the folder. */
  readonly weights: readonly string[];
  /** The commit that they came from, where the server told it. */
  readonly commit: string | null;
}

const SMALL_TEXT_BYTES = 64 * 2 ** 20;

/**
 * Fetches what a pack of a repository is made of into a folder: first what tells whether the model can be used, then its weights,
 * one file after another. Rejects with what chooseFiles, RepoRequests and downloadFile throw, and what `accept` does.
 */
export async function pullFiles(options: PullFilesOptions): Promise<PulledFiles> {
  const { name, endpoint, token, fetch, timers, fileSystem, folder, signal, report } = options;
  const requests = new RepoRequests({
    endpoint,
    token,
    fetch,
    timers,
    signal,
    onRetry: reason => report.note(reason),
  });
  const listing = await listRepo(requests, name);
  const chosen = chooseFiles(listing, name.repo, name.file);
  await writing(folder, () => makeFolder(fileSystem, folder));
  let commit: string | null = null;
  const fetchFile = async (file: RepoFile): Promise<void> => {
    const done = await downloadFile({
      requests,
      fileSystem,
      url: fileUrl(endpoint, name, file.path),
      what: `${name.repo} ${file.path}`,
      file,
      target: join(folder, posix.basename(file.path)),
      onBytes: (here, kept) => report.bytes(file, here, kept),
      signal,
    });
    commit ??= done.commit;
    if (!done.checked) report.note(`${file.path}: the server tells no hash, so only its size was checked`);
  };
  report.listed([...chosen.small, ...chosen.weights]);
  for (const file of chosen.small) await fetchFile(file);
  const weights = await neededWeights(options, chosen);
  if (weights.length < chosen.weights.length) report.listed([...chosen.small, ...weights]);
  await options.accept({
    format: chosen.format,
    weightBytes: sum(weights),
    hereBytes: await bytesHere(options, weights),
  });
  for (const file of weights) await fetchFile(file);
  return { format: chosen.format, weights: weights.map(({ path }) => posix.basename(path)), commit };
}

async function neededWeights(
  { fileSystem, folder, name }: PullFilesOptions,
  { small, weights }: ChosenFiles,
): Promise<readonly RepoFile[]> {
  const hasIndex = weights.length > 1 && small.some(({ path }) => path === INDEX_FILE);
  if (!hasIndex) return weights;
  const text = await readWholeFile(fileSystem, join(folder, INDEX_FILE), SMALL_TEXT_BYTES);
  if (text === undefined) throw new PotluckError('INTERNAL', `${INDEX_FILE} is gone.`);
  return chooseShards(weights, new TextDecoder().decode(text), name.repo);
}

/** Bytes of the weights that an earlier run left. */
async function bytesHere(
  { fileSystem, folder }: PullFilesOptions,
  weights: readonly RepoFile[],
): Promise<number> {
  let bytes = 0;
  for (const { path } of weights)
    for (const end of ['', '.part'])
      bytes += (await sizeOf(fileSystem, join(folder, posix.basename(path) + end))) ?? 0;
  return bytes;
}

const sum = (files: readonly RepoFile[]): number => files.reduce((total, { bytes }) => total + bytes, 0);

/** The address of a file, as the Hub has it. */
const fileUrl = (endpoint: string, { repo, revision }: RepoName, path: string): string =>
  `${endpoint}/${repo}/resolve/${encodeURIComponent(revision)}/${path.split('/').map(encodeURIComponent).join('/')}`;
