import { expect, test } from 'vitest';
import {
  attentionTileCount,
  deviceTiles,
  headColumns,
  passLimits,
  tileSlots,
} from '../../src/engine/device-tiles.ts';
import type { Manifest, ModelShape, TileEntry } from '../../src/pack/manifest.ts';
import { plainFeatures } from '../../src/pack/plain-shape.ts';

const shape: ModelShape = {
  weights: 'w4',
  width: 64,
  layers: 2,
  queryHeads: 2,
  kvHeads: 2,
  headDim: 32,
  ffnWidth: 96,
  vocabulary: 40,
  context: 128,
  normEpsilon: 1e-5,
  ...plainFeatures(
    2,
    32,
    Array.from({ length: 16 }, () => 1),
  ),
  tiling: { partsPerKvHead: 1, ffnColumns: 32, headRows: 16 },
  hadamard: 0,
  kvBits: 16,
};
const tile = (kind: TileEntry['kind'], layer: number, index: number) => ({ kind, layer, index }) as TileEntry;
const half = (layer: number) => [
  ...[0, 1].map(index => tile('attention', layer, index)),
  ...[0, 1, 2].map(index => tile('ffn', layer, index)),
];
const tiles = [...half(0), ...half(1), ...[0, 1, 2].map(index => tile('head', 0, index))];
const manifest = { shape, tiles } as unknown as Manifest;

test('tiles are sorted into half layers in execution order, whatever order they come in', () => {
  const mine = deviceTiles(manifest, [12, 6, 1, 4, 5, 2, 10]);
  expect(mine).toEqual({
    attention: [[1], [5, 6]],
    ffn: [[2, 4], []],
    expert: [[], []],
    head: [10, 12],
    order: [1, 2, 4, 5, 6, 10, 12],
  });
  expect(attentionTileCount(mine)).toBe(3);
});

test('attention tiles get places of their own in a KV page, head tiles their vocabulary rows', () => {
  const mine = deviceTiles(manifest, [1, 2, 5, 6, 10, 12]);
  const slots = tileSlots(manifest, mine);
  expect([1, 5, 6].map(t => slots.get(t))).toEqual([0, 1, 2]);
  expect([10, 12].map(t => slots.get(t))).toEqual([0, 32]);
  expect(headColumns(manifest, mine.head)).toEqual([
    { start: 0, count: 16 },
    { start: 32, count: 16 },
  ]);
});

test('the limits of a pass are bounded for tiny and for huge shapes', () => {
  expect(passLimits(shape)).toEqual({ maxTokens: 256, maxLogitRows: 256 });
  const huge = passLimits({ ...shape, width: 16384, vocabulary: 256_000 });
  expect(huge.maxTokens).toBeGreaterThanOrEqual(16);
  expect(huge.maxTokens * 16384 * 8).toBeLessThanOrEqual(16 << 20);
  expect(huge.maxLogitRows).toBe(16);
});
