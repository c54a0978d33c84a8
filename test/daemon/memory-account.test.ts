import { expect, test } from 'vitest';
import { type AccountInput, accountMemory } from '../../src/daemon/memory-account.ts';
import { passLimits } from '../../src/engine/device-tiles.ts';
import type { ModelShape } from '../../src/pack/manifest.ts';
import { plainFeatures } from '../../src/pack/plain-shape.ts';
import { kvPageBytes, kvSlackBytes, PAGE_POSITIONS } from '../../src/pack/tile-shape.ts';

const shape: ModelShape = {
  weights: 'w4',
  width: 512,
  layers: 10,
  queryHeads: 8,
  kvHeads: 4,
  headDim: 64,
  ffnWidth: 1536,
  vocabulary: 8192,
  context: 1024,
  normEpsilon: 1e-5,
  ...plainFeatures(
    10,
    64,
    Array.from({ length: 32 }, () => 1),
  ),
  tiling: { partsPerKvHead: 1, ffnColumns: 96, headRows: 512 },
  hadamard: 0,
  kvBits: 16,
};
const input: AccountInput = {
  budget: null,
  windowBytes: null,
  shape,
  attentionTiles: 40,
  tileBytes: 20 << 20,
  leastWindow: 400 << 10,
  activationBytes: null,
  frameBytes: 3 << 20,
  logitRowBytes: 0,
  logitRowsUsed: 0,
  processBytes: 60 << 20,
  reserveBytes: 24 << 20,
  laterBytes: 0,
  marginBytes: 8 << 20,
  kvPagesUsed: 0,
};
const total = (account: object): number => Object.values(account).reduce((sum, n) => sum + n, 0);

test('without a budget every tile fits, and the KV cache holds four full sequences', () => {
  const { account, mostKvPages } = accountMemory(input);
  expect(account.weights).toBe(20 << 20);
  expect(mostKvPages).toBe((4 * 1024) / PAGE_POSITIONS);
});

test.each([124, 140, 160, 200, 400].map(mib => mib << 20))(
  'the account of %i bytes keeps to the budget',
  budget => {
    const { account, mostKvPages } = accountMemory({ ...input, budget });
    expect(total(account)).toBeLessThanOrEqual(budget);
    expect(account.weights).toBeGreaterThan(0);
    expect(account.weights % 4096).toBe(0);
    expect(account.kv).toBe((256 / PAGE_POSITIONS) * kvPageBytes(shape, 40) + kvSlackBytes(40));
    const full = accountMemory({ ...input, budget, kvPagesUsed: mostKvPages }).account;
    expect(total(full)).toBeLessThanOrEqual(budget);
    expect(full.weights).toBeGreaterThanOrEqual(input.leastWindow - 4096);
  },
);

test('more memory never means less for weights', () => {
  let before = 0;
  for (let budget = 124 << 20; budget < 400 << 20; budget += 1 << 20) {
    const { weights } = accountMemory({ ...input, budget }).account;
    expect(weights).toBeGreaterThanOrEqual(before);
    before = weights;
  }
});

test('pages that are written take room from tiles, and nothing else', () => {
  const budget = 110 << 20;
  const { account: before } = accountMemory({ ...input, budget });
  const { account: after } = accountMemory({ ...input, budget, kvPagesUsed: 40 });
  expect(after.kv).toBe(40 * kvPageBytes(shape, 40) + kvSlackBytes(40));
  expect(Math.abs(total(after) - total(before))).toBeLessThan(4096);
  expect({ ...after, kv: 0, weights: 0 }).toEqual({ ...before, kv: 0, weights: 0 });
});

test('a window limit holds whatever the budget leaves', () => {
  expect(accountMemory({ ...input, windowBytes: 1 << 20 }).account.weights).toBe(1 << 20);
});

test('too little says the least that would do, and that does', () => {
  let message = '';
  try {
    accountMemory({ ...input, budget: 64 << 20 });
  } catch (error) {
    message = (error as Error).message;
  }
  const least = Number(/at least (\d+) MiB/.exec(message)?.[1]);
  expect(least).toBeGreaterThan(64);
  // also where the process is larger by the margin then
  const processBytes = input.processBytes + input.marginBytes;
  expect(() => accountMemory({ ...input, processBytes, budget: least << 20 })).not.toThrow();
  expect(() => accountMemory({ ...input, processBytes, budget: (least - 1) << 20 })).toThrow(
    `--memory ${least - 1} MiB is too small`,
  );
  expect(() => accountMemory({ ...input, budget: 1000 })).toThrow('--memory 1000 bytes is too small');
});

test('logits of the links are in the account: of one row at first, then of the most that were asked for, and of all in what pages leave', () => {
  const budget = 160 << 20;
  const { maxLogitRows } = passLimits(shape);
  const row = 8192 * 4;
  const frames = (logitRowsUsed: number) =>
    accountMemory({ ...input, budget, logitRowBytes: row, logitRowsUsed }).account.frames - input.frameBytes;
  expect([0, 1, 2, 3, 5].map(frames)).toEqual([1, 1, 2, 4, 8].map(rows => rows * row));
  expect(frames(maxLogitRows)).toBe(maxLogitRows * row);
  const tight = { ...input, budget: 136 << 20, shape: { ...shape, context: 65_536 }, logitRowBytes: row };
  const { mostKvPages } = accountMemory(tight);
  expect(mostKvPages).toBeLessThan(accountMemory({ ...tight, logitRowBytes: 0 }).mostKvPages);
  const full = { ...tight, kvPagesUsed: mostKvPages, logitRowsUsed: maxLogitRows };
  const { account } = accountMemory(full);
  expect(account.frames).toBe(input.frameBytes + maxLogitRows * row);
  expect(total(account)).toBeLessThanOrEqual(full.budget);
  expect(account.weights).toBeGreaterThanOrEqual(input.leastWindow - 4096);
});
