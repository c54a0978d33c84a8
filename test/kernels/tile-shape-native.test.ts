import fc from 'fast-check';
import { expect, it } from 'vitest';
import { shapeNumbers } from '../../src/kernels/shape-numbers.ts';
import {
  constantOffset,
  constantsFloats,
  kvPageBytes,
  layerConstantNames,
  paddedVocabulary,
  TILE_KINDS,
  tileBytes,
  tileCount,
  tilePanels,
  vectorPlaces,
} from '../../src/pack/tile-shape.ts';
import { addon } from './addon-under-test.ts';
import { smallShape } from './small-model.ts';

it('the addon and src/pack/tile-shape.ts agree on every place in a tile', () => {
  const count = (most: number) => fc.integer({ min: 1, max: most });
  const shapes = fc.record({
    weights: fc.constantFrom('w4' as const, 'bf16' as const),
    width: count(5000),
    heads: fc.tuple(count(8), count(4), count(8)),
    headDim: count(80).map(half => half * 2),
    ffnWidth: count(20000),
    vocabulary: count(200000),
    ffnGroups: count(40),
    headBlocks: count(80),
    layers: count(100),
    attentionTiles: count(1000),
    kvBits: fc.constantFrom(4 as const, 8 as const, 16 as const, 32 as const),
    norms: fc.record({
      input: fc.boolean(),
      output: fc.boolean(),
      queryKey: fc.constantFrom('none' as const, 'head' as const, 'whole' as const),
    }),
    biases: fc.record({
      queryKeyValue: fc.boolean(),
      output: fc.boolean(),
      gateUp: fc.boolean(),
      down: fc.boolean(),
    }),
    experts: fc.option(
      fc.record({
        count: count(200),
        perToken: fc.constant(1),
        width: count(3000),
        normalized: fc.boolean(),
        sharedWidth: fc.nat(3000),
      }),
    ),
    dense: count(3),
  });
  fc.assert(
    fc.property(
      shapes,
      ({ heads: [kv, parts, perPart], ffnGroups, headBlocks, attentionTiles, dense, ...rest }) => {
        const shape = smallShape({
          ...rest,
          width: rest.width + 5,
          layerFeatures: Array.from({ length: rest.layers }, (_, layer) => ({
            window: layer,
            rotation: -1,
            experts: rest.experts !== null && layer % dense === 0,
          })),
          kvHeads: kv,
          queryHeads: kv * parts * perPart,
          tiling: { partsPerKvHead: parts, ffnColumns: ffnGroups * 32, headRows: headBlocks * 16 },
        });
        const expected: number[] = [];
        for (const kind of TILE_KINDS) {
          const panels = tilePanels(shape, kind);
          expected.push(tileCount(shape, kind), tileBytes(shape, kind), panels.length);
          for (const p of panels)
            expected.push(p.offset, p.rows, p.paddedRows, p.columns, p.paddedColumns, p.bytes);
          expected.push(...vectorPlaces(shape, kind).places.map(({ offset }) => offset));
        }
        expected.push(paddedVocabulary(shape), kvPageBytes(shape, attentionTiles));
        for (const name of layerConstantNames(shape)) expected.push(constantOffset(shape, name));
        // The native layout: floats of one layer, where the model's own begin, and where they end.
        const ofModel = constantOffset(shape, 'finalNorm');
        const head = constantOffset(shape, 'headInA4');
        expected.push(ofModel / shape.layers, ofModel, head, constantsFloats(shape));
        const numbers = shapeNumbers(shape, { attentionTiles, kvPages: 1, maxTokens: 1, maxLogitRows: 1 });
        expect([...addon.tileShape(numbers)]).toEqual(expected);
      },
    ),
    { numRuns: 200, seed: 1 },
  );
});
