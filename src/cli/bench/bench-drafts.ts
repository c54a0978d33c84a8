import { complete, fetchStatus } from '../api-client.ts';
import type { Emulation, EmulationOptions } from '../emulate/emulation.ts';
import { withEmulation } from '../emulate/with-emulation.ts';
import { textTable } from '../text-table.ts';
import { alternate, type Measurement, measurement } from './alternate.ts';

/** Beginnings of texts that are told on and on. */
const PROMPTS = [
  'Once upon a time there was a little girl who',
  'The list: one apple, two apples, three apples, four',
  'Say it after me: a good day begins with bread. A good day',
  'In the year 1850 the town of',
  'He said that the',
];
/** Greedy, a model comes back to what it said; drawn at this temperature it seldom does. */
const TEMPERATURES = [0, 0.8] as const;

export interface DraftBenchOptions extends EmulationOptions {
  /** Tokens of each answer. */
  readonly tokens: number;
  readonly runs: number;
}

export interface DraftRow extends Measurement {
  readonly what: string;
  /** Of the tokens that were drafted in all rounds; 0 where none was. */
  readonly accepted: number;
}

/** The first row is at the top as well: tokens a second with drafts, and, as the limit, without. */
export interface DraftBench extends Measurement {
  readonly devices: number;
  readonly rows: readonly DraftRow[];
}

/** The same answers of the same devices with drafts and without, in turn. */
export function benchDrafts(options: DraftBenchOptions, signal: AbortSignal): Promise<DraftBench> {
  return withEmulation({ ...options, drafts: true }, signal, drafting =>
    withEmulation({ ...options, drafts: false }, signal, plain => compare(drafting, plain, options, signal)),
  );
}

async function compare(
  drafting: Emulation,
  plain: Emulation,
  { devices, runs, tokens }: DraftBenchOptions,
  signal: AbortSignal,
): Promise<DraftBench> {
  const rows: DraftRow[] = [];
  for (const temperature of TEMPERATURES) {
    const before = await draftsOf(drafting);
    const { drafts, none } = await alternate(
      runs,
      {
        drafts: () => tokensPerSecond(drafting.apiUrl, temperature, tokens),
        none: () => tokensPerSecond(plain.apiUrl, temperature, tokens),
      },
      signal,
    );
    const after = await draftsOf(drafting);
    const drafted = after.drafted - before.drafted;
    rows.push({
      what: temperature === 0 ? 'greedy' : `drawn, temperature ${temperature}`,
      ...measurement(drafts, none, 'tokens/s'),
      accepted: drafted === 0 ? 0 : (after.accepted - before.accepted) / drafted,
    });
  }
  const { what: _, accepted: __, ...top } = rows[0]!;
  return { ...top, devices, rows };
}

async function tokensPerSecond(url: string, temperature: number, tokens: number): Promise<number> {
  const started = performance.now();
  let all = 0;
  for (const [seed, prompt] of PROMPTS.entries())
    all += await complete(url, { prompt, temperature, seed, max_tokens: tokens });
  return (all / (performance.now() - started)) * 1000;
}

async function draftsOf(emulation: Emulation): Promise<{ drafted: number; accepted: number }> {
  const { engine } = await fetchStatus(await emulation.hubUrl());
  return { drafted: engine?.draftedTokens ?? 0, accepted: engine?.acceptedTokens ?? 0 };
}

/** What `potluck bench drafts` prints. */
export function draftsText({ rows }: DraftBench): string {
  return textTable([
    ['answers', 'tokens/s', 'without drafts', 'ratio', 'guessed right'],
    ...rows.map(({ what, measured, limit, ratio, accepted }) => [
      what,
      measured.toFixed(1),
      limit.toFixed(1),
      ratio.toFixed(2),
      `${(accepted * 100).toFixed(0)} %`,
    ]),
  ]).join('\n');
}
