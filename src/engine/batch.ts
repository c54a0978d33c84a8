import { MOST_DRAFTED } from './drafts.ts';
import type { PassCost } from './pass-cost.ts';
import type { PassRunner, PassSequence } from './pass-runner.ts';
import type { Sequence } from './sequence.ts';

/** A sequence's part of a pass. */
export interface BatchEntry {
  readonly sequence: Sequence;
  readonly pass: PassSequence;
}

export interface BatchLimits {
  readonly maxTokens: number;
  readonly maxLogitRows: number;
}

/** Prompts share a pass only while each gets this many tokens: shorter chunks waste the weights that were read. */
const LEAST_CHUNK = 16;

const pending = (s: Sequence): number => s.tokens.length - s.cached;
const longestUnserved = (a: Sequence, b: Sequence): number =>
  a.lastPass - b.lastPass || a.arrival - b.arrival;

/**
 * The next pass. First one token of every sequence that has one token to go (those that generate), then prompts share the
 * rest evenly. Where there is not room for all, those go first that were left out longest; while prompts wait, a
 * quarter of the tokens and rows is kept for them. `active` sequences hold pages for every token they have.
 */
export function planBatch(active: readonly Sequence[], limits: BatchLimits): BatchEntry[] {
  const single: Sequence[] = [];
  const long: Sequence[] = [];
  for (const s of active) if (!s.reader.paused) (pending(s) === 1 ? single : long).push(s);

  const entries: BatchEntry[] = [];
  let tokens = limits.maxTokens;
  let rows = limits.maxLogitRows;
  const add = (s: Sequence, most: number): void => {
    const pass = cut(s, most, rows);
    if (pass.tokens.length === 0) return;
    entries.push({ sequence: s, pass });
    tokens -= pass.tokens.length;
    rows -= pass.logitsAt.length;
  };

  const keep = (n: number): number => (long.length > 0 ? n - Math.floor(n / 4) : n);
  const room = Math.min(keep(rows), keep(tokens));
  if (single.length > room) single.sort(longestUnserved);
  for (const s of single.slice(0, room)) add(s, 1);

  if (long.length === 0 || tokens === 0) return entries;
  long.sort(longestUnserved);
  const sharing = long.slice(0, Math.max(1, Math.floor(tokens / LEAST_CHUNK)));
  // Short ones first, so that what they do not need goes to the others.
  sharing.sort((a, b) => pending(a) - pending(b) || a.arrival - b.arrival);
  sharing.forEach((s, i) => {
    add(s, Math.floor(tokens / (sharing.length - i)));
  });
  return entries;
}

/** The next tokens of a sequence: at most `most`, fewer where their logits would need more than `rows` rows. */
function cut(s: Sequence, most: number, rows: number): PassSequence {
  const start = s.cached;
  let end = Math.min(start + most, s.tokens.length);
  const logitsAt: number[] = [];
  for (let p = s.reader.nextWanted(start); p < end; p = s.reader.nextWanted(p + 1)) {
    if (logitsAt.length === rows) end = p;
    else logitsAt.push(p - start);
  }
  return { pages: s.table!.pages, length: s.length, start, tokens: s.tokens.slice(start, end), logitsAt };
}

/**
 * Where one sequence generates alone, its pass checks what is likely to come, too: weights are read once for all of its tokens. Its
 * tokens are then followed by the draft, with the logits of all.
 */
export function withDraft(
  batch: BatchEntry[],
  {
    maxTokens,
    maxLogitRows,
    rotationSwitch,
  }: Pick<PassRunner, 'maxTokens' | 'maxLogitRows' | 'rotationSwitch'>,
  cost: PassCost,
): BatchEntry[] {
  const [entry] = batch;
  if (entry === undefined || batch.length > 1) return batch;
  const { sequence, pass } = entry;
  if (pass.tokens.length > 1 || pass.logitsAt.length === 0) return batch;
  const known = sequence.tokens.length;
  // A text longer than that has all its keys rotated otherwise.
  const rotated = sequence.length > rotationSwitch ? MOST_DRAFTED : rotationSwitch - known;
  const most = Math.min(MOST_DRAFTED, maxTokens - 1, maxLogitRows - 1, rotated);
  const draft = sequence.reader.draft(most, cost);
  const table = sequence.table!;
  if (draft.length === 0 || !table.reserve(known + draft.length)) return batch;
  const tokens = [...pass.tokens, ...draft];
  return [{ sequence, pass: { ...pass, pages: table.pages, tokens, logitsAt: [...tokens.keys()] } }];
}
