import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { NativeModel, NativePool } from '../../src/kernels/addon.ts';
import type { Step } from '../../src/kernels/backend.ts';
import { ProgramEncoder } from '../../src/kernels/program.ts';
import { shapeNumbers } from '../../src/kernels/shape-numbers.ts';
import { tileBytes } from '../../src/pack/tile-shape.ts';
import { addon } from './addon-under-test.ts';
import { makeSmallModel, smallShape } from './small-model.ts';

const shape = smallShape();
const LIMITS = { attentionTiles: 3, kvPages: 5, maxTokens: 4, maxLogitRows: 2 };
const frequencies = Float64Array.from(shape.rotations[0]!.frequencies);
const { constants } = makeSmallModel(shape);
const weightsBytes = tileBytes(shape, 'attention') * 3;
let pool: NativePool;
let weights: ArrayBuffer;
let model: NativeModel;

beforeAll(() => {
  pool = addon.createPool(2, '');
  weights = addon.allocate(weightsBytes);
  model = addon.createModel(pool, shapeNumbers(shape, LIMITS), constants, weights).model;
});
afterAll(() => {
  addon.closeModel(model);
  addon.closePool(pool);
  addon.release(weights);
});

const ints = (...values: number[]) => Int32Array.of(...values);
/** Two sequences: pages 0, 1 and page 4. */
function setBatch(
  positions: number[],
  sequences: number[],
  logitRows: number[] = [],
  pages = ints(0, 1, 4),
): void {
  addon.setBatch(
    model,
    Int32Array.from(positions),
    Int32Array.from(sequences),
    pages,
    ints(0, 2, 3),
    ints(...logitRows),
    Int32Array.from(positions, () => 0),
    frequencies,
  );
}

describe('createModel', () => {
  const create = (numbers: Float64Array, given: Partial<{ c: ArrayBuffer; w: ArrayBuffer }> = {}) =>
    addon.createModel(pool, numbers, given.c ?? constants, given.w ?? weights);

  it.each([
    ['width', 1, 0],
    ['width', 1, 1.5],
    ['width', 1, Number.NaN],
    ['layers', 2, 1e9],
    ['queryHeads', 3, 3],
    ['kvHeads', 4, 3],
    ['headDim', 5, 21],
    ['normEpsilon', 9, -1],
    ['partsPerKvHead', 10, 3],
    ['ffnColumns', 11, 33],
    ['headRows', 12, 8],
    ['hadamard', 13, 16],
    ['kvBits', 14, 6],
    ['norms.queryKey', 17, 3],
    ['scoreScale', 23, 0],
    ['scoreCap', 24, Number.NaN],
    ['experts.perToken', 28, 1],
    ['kvPages', 33, -1],
    ['maxTokens', 34, 0],
    ['maxTokens', 34, 1e7],
    ['maxLogitRows', 35, Number.POSITIVE_INFINITY],
    ['rotations', 36, 0],
    ['rotations', 36, 2],
    ['rotation pairs', 37, 11],
    ['rotation of a layer', 40, 1],
    ['experts of a layer', 41, 1],
  ])('refuses %s (number %i) of %d', (_, index, value) => {
    const numbers = shapeNumbers(shape, LIMITS);
    numbers[index] = value;
    expect(() => create(numbers)).toThrow(RangeError);
  });

  it('refuses scratch and key memory beyond reason', () => {
    const wide = { ...shape, ffnWidth: 1 << 20 };
    expect(() => create(shapeNumbers(wide, { ...LIMITS, maxTokens: 65536 }))).toThrow(/scratch/);
    expect(() =>
      create(shapeNumbers(shape, { ...LIMITS, attentionTiles: 1 << 24, kvPages: 1 << 26 })),
    ).toThrow(/kvPages/);
  });

  it('refuses buffers that do not fit', () => {
    const numbers = shapeNumbers(shape, LIMITS);
    expect(() => create(numbers.subarray(1))).toThrow(RangeError);
    expect(() => create(numbers, { c: constants.slice(4) })).toThrow(/constants/);
    expect(() => create(numbers, { c: new ArrayBuffer(constants.byteLength) })).toThrow(/power of two/);
    expect(() => create(numbers, { w: new ArrayBuffer(4096) })).toThrow(/allocate/);
  });
});

describe('setBatch', () => {
  it.each([
    ['a position behind its pages', [32], [1], []],
    ['a negative position', [-1], [0], []],
    ['a position at the end of the context', [96], [0], []],
    ['positions that do not rise', [3, 3], [0, 0], []],
    ['positions that fall', [3, 0, 2], [0, 1, 0], []],
    ['a sequence without a table', [0], [2], []],
    ['a negative sequence', [0], [-1], []],
    ['more tokens than maxTokens', [0, 1, 2, 3, 4], [0, 0, 0, 0, 0], []],
    ['fewer sequences than positions', [0, 1], [0], []],
    ['a logit row behind the tokens', [0, 1], [0, 0], [2]],
    ['logit rows that do not rise', [0, 1], [0, 0], [1, 0]],
    ['more logit rows than maxLogitRows', [0, 1, 2], [0, 0, 0], [0, 1, 2]],
  ])('refuses %s', (_, positions, sequences, logitRows) => {
    expect(() => setBatch(positions, sequences, logitRows)).toThrow(RangeError);
  });

  it('refuses frequencies that do not fit the model, or are none', () => {
    const set = (lengths: Int32Array, rows: Float64Array) =>
      addon.setBatch(model, ints(0, 1), ints(0, 0), ints(0), ints(0, 1), ints(), lengths, rows);
    expect(() => set(ints(0), frequencies)).toThrow(/lengths/);
    expect(() => set(ints(0, 1), frequencies)).toThrow(/length/);
    expect(() => set(ints(0, -1), frequencies)).toThrow(/length/);
    expect(() => set(ints(0, 0), frequencies.subarray(1))).toThrow(/frequencies/);
    expect(() =>
      set(
        ints(0, 0),
        frequencies.map(() => 1e9),
      ),
    ).toThrow(/radians/);
    expect(() =>
      set(
        ints(0, 0),
        frequencies.map(() => Number.NaN),
      ),
    ).toThrow(/radians/);
    set(ints(1, 0), Float64Array.of(...frequencies, ...frequencies));
  });

  it('refuses pages that are not there', () => {
    const rest = [ints(), ints(0), frequencies] as const;
    expect(() => setBatch([0], [0], [], ints(0, 1, 5))).toThrow(RangeError);
    expect(() => setBatch([0], [0], [], ints(-1, 1, 4))).toThrow(RangeError);
    expect(() => addon.setBatch(model, ints(0), ints(0), ints(0), ints(0, 2), ...rest)).toThrow(RangeError);
    expect(() => addon.setBatch(model, ints(0), ints(0), ints(0, 1), ints(0, 2, 1, 2), ...rest)).toThrow(
      RangeError,
    );
    expect(() => addon.setBatch(model, ints(0), ints(0), ints(), ints(), ...rest)).toThrow(RangeError);
    // the scratch for scores is no longer than all pages
    const twice = ints(0, 1, 2, 3, 4, 0);
    expect(() => addon.setBatch(model, ints(0), ints(0), twice, ints(0, 6), ...rest)).toThrow(/more pages/);
    setBatch([0, 17, 3], [0, 0, 1], [1, 2]);
  });
});

/** The words of a program, for good. */
const encode = (steps: readonly Step[]) => new ProgramEncoder().encode(steps);

describe('run', () => {
  const tile = (offset: number, slot = 0, half: 'attention' | 'ffn' = 'attention', layer = 0) =>
    encode([{ op: 'tiles', layer, half, tiles: [{ offset, slot }] }]);

  it.each([
    ['an offset that is not aligned', tile(32)],
    ['an offset behind the weights', tile(weightsBytes - tileBytes(shape, 'attention') + 64)],
    ['a negative offset', tile(-64)],
    ['an offset that is no number', tile(Number.NaN)],
    ['a slot that is not there', tile(0, 3)],
    ['an ffn slot', tile(0, 1, 'ffn')],
    ['a layer that is not there', tile(0, 0, 'ffn', 2)],
    ['a slot twice', encode([{ op: 'tiles', layer: 0, half: 'attention', tiles: [at(0), at(64)] }])],
    [
      'more tiles than there are',
      encode([{ op: 'tiles', layer: 0, half: 'attention', tiles: [0, 1, 2].map(at) }]),
    ],
    ['a head row between tiles', encode([{ op: 'head-tiles', tiles: [{ offset: 0, slot: 16 }] }])],
    ['a head row behind the vocabulary', encode([{ op: 'head-tiles', tiles: [{ offset: 0, slot: 96 }] }])],
    ['an operation that is not there', Float64Array.of(8, 0, 0, 0)],
    ['experts in a layer without', Float64Array.of(5, 0, 1, 0)],
    ['squares where heads are not normed as one', Float64Array.of(6, 0, 0, 0)],
    ['half a step', Float64Array.of(1, 0, 0)],
    ['tiles without words', Float64Array.of(1, 0, 0, 1)],
    ['tiles of a step that takes none', Float64Array.of(0, 0, 0, 1, 0, 0)],
  ])('refuses %s', (_, program) => {
    expect(() => addon.run(model, program, false)).toThrow(RangeError);
  });

  function at(slot: number) {
    return { offset: slot * 64, slot };
  }

  it('either refuses or runs any words', async () => {
    const word = fc.oneof(
      fc.integer({ min: 0, max: 5 }),
      fc.constantFrom(
        0,
        32,
        64,
        4096,
        8192,
        weightsBytes,
        -1,
        0.5,
        2 ** 53,
        Number.NaN,
        Number.NEGATIVE_INFINITY,
      ),
      fc.double(),
    );
    const step = fc.tuple(
      fc.integer({ min: 0, max: 4 }),
      fc.integer({ min: 0, max: 1 }),
      fc.integer({ min: 0, max: 1 }),
    );
    const steps = fc.array(
      fc.oneof(
        step.map(([op, layer, half]) => [op, layer, half, 0]),
        step.map(([, layer, half]) => [1, layer, half, 1, 64, 0]),
        fc.array(word, { maxLength: 8 }),
      ),
      { maxLength: 6 },
    );
    setBatch([0, 17, 3], [0, 0, 1], [1, 2]);
    let ran = 0;
    await fc.assert(
      fc.asyncProperty(steps, async parts => {
        let running: Promise<unknown>;
        try {
          running = addon.run(model, Float64Array.from(parts.flat()), false);
        } catch (error) {
          expect(error).toBeInstanceOf(RangeError);
          return;
        }
        ran++;
        await running;
      }),
      { numRuns: 500, seed: 7 },
    );
    expect(ran).toBeGreaterThan(50);
  });
});

describe('handles', () => {
  it('are of no other model or pool', () => {
    expect(() => addon.closeModel(pool as NativeModel)).toThrow(RangeError);
    expect(() => addon.closePool(model as NativePool)).toThrow(RangeError);
    expect(() => addon.closePool({ kernel: 'avx2' })).toThrow(RangeError);
  });
});
