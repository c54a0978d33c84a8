import { expect, test } from 'vitest';
import { benchDrafts, draftsText } from '../../../src/cli/bench/bench-drafts.ts';
import { builtInModel } from '../../../src/cli/project.ts';

test('drafts: both rows beside the same answers without them', { timeout: 60_000 }, async () => {
  const options = { devices: 1, threads: 1, model: builtInModel(), tokens: 48, runs: 1 };
  const bench = await benchDrafts(options, new AbortController().signal);
  expect(bench).toMatchObject({ devices: 1, unit: 'tokens/s' });
  expect(bench.rows.map(row => row.what)).toEqual(['greedy', 'drawn, temperature 0.8']);
  for (const row of bench.rows) {
    expect(row.ratio).toBeCloseTo(row.measured / row.limit, 10);
    expect(row.accepted).toBeLessThanOrEqual(1);
  }
  expect(bench.rows[0]!.accepted).toBeGreaterThan(0);
  expect(draftsText(bench)).toMatch(/^answers .*\ngreedy .* %\ndrawn/);
});
