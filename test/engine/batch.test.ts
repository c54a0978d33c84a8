import { describe, expect, it } from 'vitest';
import { planBatch } from '../../src/engine/batch.ts';
import { KvPages, PageTable } from '../../src/engine/kv-pages.ts';
import type { Sequence } from '../../src/engine/sequence.ts';

const pool = new KvPages(1000);

interface Given {
  arrival: number;
  pending: number;
  cached?: number;
  paused?: boolean;
  lastPass?: number;
  /** Positions whose logits are wanted; the last one, as for an answer, where absent. */
  at?: number[];
}

function sequence({ arrival, pending, cached = 0, paused = false, lastPass = -1, at }: Given): Sequence {
  const tokens = Array.from({ length: cached + pending }, (_, i) => i);
  const wanted = at ?? [tokens.length - 1];
  const table = new PageTable(pool);
  table.reserve(tokens.length);
  return {
    arrival,
    tokens,
    promptLength: tokens.length,
    length: tokens.length,
    reader: {
      paused,
      fit: () => 'run',
      nextWanted: p => wanted.find(w => w >= p) ?? Number.POSITIVE_INFINITY,
      draft: () => [],
      take: () => 'more',
      fail: () => undefined,
    },
    state: 'active',
    fitted: true,
    table,
    cached,
    counted: 0,
    lastPass,
  };
}

const shape = (given: Given[], maxTokens: number, maxLogitRows: number): unknown =>
  planBatch(given.map(sequence), { maxTokens, maxLogitRows }).map(({ sequence: s, pass }) => [
    s.arrival,
    pass.start,
    pass.tokens.length,
    [...pass.logitsAt],
  ]);

describe('planBatch', () => {
  it('puts generating sequences first and shares the rest among prompts', () => {
    const given = [
      { arrival: 0, pending: 100 },
      { arrival: 1, pending: 1, cached: 9 },
      { arrival: 2, pending: 20, cached: 5 },
      { arrival: 3, pending: 1, cached: 40, paused: true },
    ];
    expect(shape(given, 65, 8)).toEqual([
      [1, 9, 1, [0]],
      [2, 5, 20, [19]],
      [0, 0, 44, []],
    ]);
  });

  it('lets prompts take turns where there is not room for a useful chunk of each', () => {
    const given = [
      { arrival: 0, pending: 100, lastPass: 4 },
      { arrival: 1, pending: 100, lastPass: 2 },
      { arrival: 2, pending: 100, lastPass: 3 },
    ];
    expect(shape(given, 20, 8)).toEqual([[1, 0, 20, []]]);
  });

  it('lets generating sequences take turns, and keeps a quarter for prompts', () => {
    const given = [5, 1, 4, 2, 3].map((lastPass, arrival) => ({ arrival, pending: 1, lastPass }));
    const served = (s: unknown): unknown => (s as number[][]).map(e => e[0]);
    expect(served(shape(given, 3, 8))).toEqual([1, 3, 4]);
    expect(served(shape(given, 8, 2))).toEqual([1, 3]);
    expect(served(shape([...given, { arrival: 9, pending: 50 }], 4, 8))).toEqual([1, 3, 4, 9]);
  });

  it('holds back the last token of a prompt where no logit row is left', () => {
    const given = [
      { arrival: 0, pending: 1 },
      { arrival: 1, pending: 10 },
      { arrival: 2, pending: 12 },
    ];
    expect(shape(given, 64, 2)).toEqual([
      [0, 0, 1, [0]],
      [1, 0, 10, [9]],
      [2, 0, 11, []],
    ]);
  });

  it('cuts an evaluated text where its rows run out', () => {
    const at = [2, 3, 7, 8, 9, 19];
    expect(shape([{ arrival: 0, pending: 20, at }], 64, 3)).toEqual([[0, 0, 8, [2, 3, 7]]]);
    expect(shape([{ arrival: 0, pending: 12, cached: 8, at }], 64, 3)).toEqual([[0, 8, 12, [0, 1, 11]]]);
  });

  it('is empty where all pause', () => {
    expect(shape([{ arrival: 0, pending: 3, paused: true }], 8, 8)).toEqual([]);
  });
});
