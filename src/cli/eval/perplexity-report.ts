import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { loadBackend } from '../../daemon/load-backend.ts';
import { PotluckError } from '../../errors/errors.ts';
import type { Backend } from '../../kernels/backend.ts';
import type { ActivationLevels } from '../../model/quantizer/level-blocks.ts';
import type { Tokenizer } from '../../model/tokenizer.ts';
import type { ModelShape } from '../../pack/manifest.ts';
import { defaultThreads } from '../default-threads.ts';
import { Divergence } from './divergence.ts';
import { LayerwisePack } from './layerwise-pack.ts';
import { CHARACTERS, firstCharacters, windowsOf } from './perplexity.ts';

export interface PerplexityText {
  readonly name: string;
  readonly windows: readonly (readonly number[])[];
}

/** One model with one choice of numbers. */
export interface PerplexitySubject {
  readonly label: string;
  readonly folder: string;
  readonly activations: ActivationLevels | null;
  readonly kvBits: ModelShape['kvBits'] | null;
}

export interface PerplexityRow {
  readonly label: string;
  readonly kvBits: number;
  /** The part of all multiply-adds in 4x4 bits. */
  readonly multiplyAddsInA4: number;
  readonly texts: readonly {
    readonly text: string;
    readonly perplexity: number;
    /** Relative to the reference; 0.01 is one per cent worse. Null without one. */
    readonly rise: number | null;
    /** Mean KL divergence from the reference, in nats. */
    readonly divergence: number | null;
  }[];
  readonly meanDivergence: number | null;
}

/** Reads texts and cuts them into windows of `window` predictions, as many as there are but at most `windows`. */
export async function readTexts(
  files: readonly string[],
  tokenizer: Tokenizer,
  { windows, window }: { readonly windows: number; readonly window: number },
): Promise<PerplexityText[]> {
  const texts: PerplexityText[] = [];
  for (const file of files) {
    const ids = tokenizer.encode(firstCharacters(await readText(file), CHARACTERS), { special: false });
    const count = Math.min(windows, Math.floor(ids.length / (window + 1)));
    if (count === 0)
      throw new PotluckError(
        'BAD_OPTION',
        `${file}: ${ids.length} tokens do not fill a window of ${window + 1}.`,
      );
    texts.push({ name: basename(file), windows: windowsOf(ids, { windows: count, window }) });
  }
  return texts;
}

async function readText(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    throw new PotluckError('DISK_READ', `${file} cannot be read: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/**
 * Perplexity of each subject on each text, and how far its predictions are from those of the reference pack (the first row
 * then). Every window is computed alone, from position 0.
 */
export async function measurePerplexity(
  reference: string | null,
  subjects: readonly PerplexitySubject[],
  texts: readonly PerplexityText[],
  onProgress: (line: string) => void,
): Promise<PerplexityRow[]> {
  const loaded = await loadBackend({ backend: 'auto', kernel: null, threads: defaultThreads() });
  for (const line of loaded.notes) onProgress(line);
  try {
    const base =
      reference === null
        ? null
        : await openSubject(loaded.backend, referenceSubject(reference), texts, onProgress);
    const rows: PerplexityRow[] = base ? [await rowOf(loaded.backend, base, null, texts)] : [];
    for (const subject of subjects) {
      const opened = await openSubject(loaded.backend, subject, texts, onProgress);
      rows.push(await rowOf(loaded.backend, opened, base, texts, rows[0]));
      await opened.pack.close();
    }
    await base?.pack.close();
    return rows;
  } finally {
    loaded.backend.close();
  }
}

const referenceSubject = (folder: string): PerplexitySubject => ({
  label: 'bf16',
  folder,
  activations: null,
  kvBits: null,
});

interface OpenedSubject {
  readonly label: string;
  readonly pack: LayerwisePack;
  /** Of each text, of each window. */
  readonly residuals: readonly (readonly Float32Array[])[];
}

async function openSubject(
  backend: Backend,
  subject: PerplexitySubject,
  texts: readonly PerplexityText[],
  onProgress: (line: string) => void,
): Promise<OpenedSubject> {
  const pack = await LayerwisePack.open(subject.folder, subject);
  const inputs = texts.flatMap(({ windows }) => windows.map(window => window.slice(0, -1)));
  const all = await pack.residuals(backend, inputs, done =>
    onProgress(`${subject.label}: layer ${done} of ${pack.shape.layers}`),
  );
  let first = 0;
  const residuals = texts.map(({ windows }) => {
    const mine = all.slice(first, first + windows.length);
    first += windows.length;
    return mine;
  });
  return { label: subject.label, pack, residuals };
}

async function rowOf(
  backend: Backend,
  subject: OpenedSubject,
  base: OpenedSubject | null,
  texts: readonly PerplexityText[],
  baseRow?: PerplexityRow,
): Promise<PerplexityRow> {
  const results: PerplexityRow['texts'][number][] = [];
  for (const [i, text] of texts.entries()) {
    const sums = new Divergence();
    for (const [w, window] of text.windows.entries()) {
      const expected = base ? await logitsOf(backend, base, base.residuals[i]![w]!) : null;
      await subject.pack.eachLogits(backend, [subject.residuals[i]![w]!], (_, token, logits) =>
        sums.add(logits, window[token + 1]!, expected?.[token] ?? null),
      );
    }
    const before = baseRow?.texts[i]?.perplexity;
    results.push({
      text: text.name,
      perplexity: sums.perplexity,
      rise: before === undefined ? null : sums.perplexity / before - 1,
      divergence: base ? sums.divergence : null,
    });
  }
  const divergences = results.flatMap(({ divergence }) => (divergence === null ? [] : [divergence]));
  return {
    label: subject.label,
    kvBits: subject.pack.shape.kvBits,
    multiplyAddsInA4: subject.pack.shareInA4,
    texts: results,
    meanDivergence:
      divergences.length === 0
        ? null
        : divergences.reduce((sum, value) => sum + value, 0) / divergences.length,
  };
}

/** Logits of all tokens of a window; [tokens][vocabulary]. */
async function logitsOf(
  backend: Backend,
  { pack }: OpenedSubject,
  residual: Float32Array,
): Promise<Float32Array[]> {
  const rows: Float32Array[] = [];
  await pack.eachLogits(backend, [residual], (_, __, logits) => rows.push(logits.slice()));
  return rows;
}
