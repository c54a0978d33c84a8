import { createHash } from 'node:crypto';
import * as fileSystem from 'node:fs/promises';
import type { Manifest, WeightFormat } from '../../pack/manifest.ts';
import { openPackFolder } from '../../pack/pack-folder.ts';
import { evaluateHash, generate } from '../api-client.ts';
import type { EmulationOptions } from '../emulate/emulation.ts';
import { withEmulation } from '../emulate/with-emulation.ts';
import { modelKind } from '../model-path.ts';
import { withTemporaryPack } from './temporary-pack.ts';

const PROMPT_TOKENS = 40;
const GENERATED_TOKENS = 24;

type Cluster = Omit<EmulationOptions, 'model'>;

export interface BitsRow {
  readonly weights: WeightFormat;
  readonly cluster: string;
  /** SHA-256 of the logits at every position of the prompt. */
  readonly logits: string;
  /** SHA-256 of a greedy continuation. */
  readonly tokens: string;
}

export interface BitsReport {
  readonly rows: readonly BitsRow[];
  readonly passed: boolean;
}

/**
 * Runs one prompt on clusters of several sizes, with even and uneven shares and one or two threads, and hashes what
 * comes out: every cluster must give the same bits. `model`: a pack, or a checkpoint (then w4 and bf16 packs are made).
 */
export async function evalBits(
  model: string,
  devices: readonly number[],
  onRow: (row: BitsRow) => void,
  signal: AbortSignal,
): Promise<BitsReport> {
  const rows: BitsRow[] = [];
  const measure = async (folder: string, manifest: Manifest): Promise<void> => {
    for (const cluster of clustersOf(devices)) {
      const row = await measureCluster(folder, manifest, cluster, signal);
      rows.push(row);
      onRow(row);
    }
  };
  if (modelKind(model) === 'pack') {
    await measure(model, (await openPackFolder(fileSystem, model)).manifest);
  } else {
    for (const weights of ['w4', 'bf16'] as const) await withTemporaryPack(model, weights, measure);
  }
  return { rows, passed: allEqual(rows) };
}

/** Every count with one thread each, then uneven shares and more threads. */
export function clustersOf(counts: readonly number[]): Cluster[] {
  const most = Math.max(...counts);
  const even = counts.map(devices => ({ devices, threads: 1 }));
  const uneven =
    most < 2 ? [] : [{ devices: most, threads: 1, shares: Array.from({ length: most }, (_, i) => i + 1) }];
  const threaded = [...new Set([Math.min(...counts), most])].map(devices => ({ devices, threads: 2 }));
  return [...even, ...uneven, ...threaded];
}

/** Whether all rows of one weight format have the same hashes; no rows prove nothing. */
export function allEqual(rows: readonly BitsRow[]): boolean {
  const seen = new Map<string, Set<string>>();
  for (const { weights, logits, tokens } of rows) {
    seen.set(weights, (seen.get(weights) ?? new Set()).add(`${logits} ${tokens}`));
  }
  return rows.length > 0 && [...seen.values()].every(hashes => hashes.size === 1);
}

async function measureCluster(
  model: string,
  { shape }: Manifest,
  cluster: Cluster,
  signal: AbortSignal,
): Promise<BitsRow> {
  // Ids spread over the vocabulary; which ones does not matter.
  const prompt = Array.from({ length: PROMPT_TOKENS }, (_, i) => (i * 7919 + 13) % shape.vocabulary);
  return withEmulation({ ...cluster, model }, signal, async emulation => {
    const url = await emulation.hubUrl();
    const logits = await evaluateHash(url, prompt, [...prompt.keys()]);
    const { tokens } = await generate(url, prompt, GENERATED_TOKENS, []);
    const hash = createHash('sha256').update(tokens.join(' ')).digest('hex');
    return { weights: shape.weights, cluster: clusterText(cluster), logits, tokens: hash };
  });
}

function clusterText({ devices, threads, shares }: Cluster): string {
  const share = shares === undefined ? '' : `, shares ${shares.join(':')}`;
  return `${devices === 1 ? '1 device' : `${devices} devices`}, ${threads === 1 ? '1 thread' : `${threads} threads`}${share}`;
}
