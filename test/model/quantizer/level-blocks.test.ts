import { expect, it } from 'vitest';
import {
  allBlocks,
  chooseLevels,
  type LevelBlock,
  MIXED_SHARE,
  shareInA4,
} from '../../../src/model/quantizer/level-blocks.ts';
import { tileCount } from '../../../src/pack/tile-shape.ts';
import { smallShape } from '../../kernels/small-model.ts';

const block = (multiplyAdds: number): LevelBlock => ({
  layer: 0,
  constant: 'attentionInA4',
  tile: null,
  block: 0,
  multiplyAdds,
});

it('counts every multiply-add of a dense model once', () => {
  const s = smallShape();
  const perTile = (s.queryHeads / s.kvHeads / s.tiling.partsPerKvHead) * s.headDim;
  const attention = tileCount(s, 'attention') * s.width * (2 * perTile + 2 * s.headDim);
  const ffn = tileCount(s, 'ffn') * 3 * s.tiling.ffnColumns * s.width;
  const head = tileCount(s, 'head') * s.tiling.headRows * s.width;
  const all = allBlocks(s).reduce((sum, { multiplyAdds }) => sum + multiplyAdds, 0);
  expect(all).toBe(s.layers * (attention + ffn) + head);
});

it('puts the blocks that 4 bits damage most, for their multiply-adds, into 8 bits', () => {
  const blocks = Array.from({ length: 20 }, (_, i) => block(i < 2 ? 10 : 1));
  const damage = blocks.map((_, i) => (i < 2 ? 5 : i === 7 ? 3 : i === 11 ? 2 : i / 1000));
  const inA4 = chooseLevels(blocks, damage, 'mixed');
  expect(inA4[7]).toBe(false);
  expect(inA4[11]).toBe(false);
  expect(inA4[0]).toBe(true); // would take more than is left
  expect(shareInA4(blocks, inA4)).toBeGreaterThanOrEqual(MIXED_SHARE);
  expect(inA4.filter(in4 => !in4).length).toBe(Math.floor(38 * 0.2));
});

it('gives all blocks one level where that is asked for', () => {
  const blocks = [block(1), block(2)];
  expect(chooseLevels(blocks, [1, 2], 'a8')).toEqual([false, false]);
  expect(chooseLevels(blocks, [1, 2], 'a4')).toEqual([true, true]);
});
