import { describe, expect, it } from 'vitest';
import type { Batch, Step } from '../../src/kernels/backend.ts';
import { createOnnxBackend } from '../../src/kernels/onnx-backend.ts';
import { OnnxTileCache } from '../../src/kernels/onnx-tile-cache.ts';
import type { ModelShape } from '../../src/pack/manifest.ts';
import { constantOffset, tileBytes } from '../../src/pack/tile-shape.ts';
import { oracleLogits } from './layer-oracle.ts';
import { ort } from './onnx-under-test.ts';
import { makeBatch, makeSmallModel, runPass, SmallDevice, smallShape, writeEmbedded } from './small-model.ts';

const SHAPES: readonly [string, ModelShape][] = [
  ['w4', smallShape()],
  ['bf16', smallShape({ weights: 'bf16' })],
  [
    'w4, KV heads in two parts',
    smallShape({
      width: 64,
      headDim: 32,
      rotations: [
        { frequencies: Array.from({ length: 16 }, (_, i) => 50 ** (-i / 16)), magnitude: 1, beyond: null },
      ],
      tiling: { partsPerKvHead: 2, ffnColumns: 64, headRows: 16 },
    }),
  ],
  [
    'bf16, KV heads in two parts',
    smallShape({
      weights: 'bf16',
      width: 41,
      tiling: { partsPerKvHead: 2, ffnColumns: 64, headRows: 16 },
    }),
  ],
];

function relativeError(rows: readonly Float32Array[], exact: readonly Float64Array[]): number {
  let difference = 0;
  let size = 0;
  exact.forEach((row, t) => {
    row.forEach((value, i) => {
      difference += (rows[t]![i]! - value) ** 2;
      size += value ** 2;
    });
  });
  return Math.sqrt(difference / size);
}

const backend = (cacheBytes = 1 << 24) => createOnnxBackend(ort!, { threads: 2, cacheBytes });
/** Columns that MatMulNBits quantizes with one scale. */
const ROUNDED = 32;
const WHOLE = makeBatch([0, 0], [19, 6]);

describe.skipIf(ort === null)('onnxruntime', () => {
  describe.each(SHAPES)('%s', (_, shape) => {
    // A key or value may round to the neighbouring half; with w4 an activation to the neighbouring int8, which is a
    // step of the largest in its group, in one input of `width`.
    const bound = shape.weights === 'bf16' ? 2 ** -11 : 1 / 127 / Math.sqrt(shape.width);

    it('gives the logits that double precision gives, up to its roundings', async () => {
      const small = makeSmallModel(shape);
      const device = new SmallDevice(backend(), small);
      const exact = [...oracleLogits(small, 0, 19, ROUNDED), ...oracleLogits(small, 1, 6, ROUNDED)];
      expect(relativeError(await runPass(device, WHOLE), exact)).toBeLessThan(bound);
      device.close();
    });

    it('gives them token by token too, and without a cache', async () => {
      const small = makeSmallModel(shape);
      const device = new SmallDevice(backend(0), small);
      const exact = [...oracleLogits(small, 0, 16, ROUNDED), ...oracleLogits(small, 1, 5, ROUNDED)];
      const first = await runPass(device, makeBatch([0, 0], [14, 3]));
      const rows = [first.slice(0, 14), first.slice(14)];
      for (let t = 0; t < 2; t++) {
        const both = await runPass(device, makeBatch([14 + t, 3 + t], [1, 1]));
        rows[0]!.push(both[0]!);
        rows[1]!.push(both[1]!);
      }
      expect(relativeError(rows.flat(), exact)).toBeLessThan(bound);
      device.close();
    });
  });

  it('computes with the bytes that are there now', async () => {
    const shape = smallShape();
    const [one, other] = [makeSmallModel(shape, 1), makeSmallModel(shape, 2)];
    const made = backend();
    const device = new SmallDevice(made, one);
    const memory = new ArrayBuffer(tileBytes(shape, 'ffn'));
    const model = made.openModel({
      shape,
      constants: one.constants,
      weights: memory,
      attentionTiles: 0,
      kvPages: 8,
      maxTokens: 4,
      maxLogitRows: 4,
    });
    const batch = makeBatch([0], [4]);
    const partialOf = async (small: typeof one): Promise<number[]> => {
      new Uint8Array(memory).set(small.tile('ffn', 0, 0).bytes);
      model.setBatch(batch);
      model.pass.residual.set(Float32Array.from({ length: 4 * shape.width }, (_, i) => Math.sin(i)));
      await model.run([
        { op: 'begin', layer: 0, half: 'ffn' },
        { op: 'tiles', layer: 0, half: 'ffn', tiles: [{ offset: 0, slot: 0 }] },
      ]);
      return [...model.pass.partial];
    };
    const first = await partialOf(one);
    const second = await partialOf(other);
    expect(second).not.toEqual(first);
    expect(await partialOf(one)).toEqual(first);
    expect(await partialOf(other)).toEqual(second);
    model.close();
    device.close();
  });

  it('keeps tiles that stay, not those that stream, and not more than its limit', async () => {
    const shape = smallShape();
    const small = makeSmallModel(shape);
    const bytes = tileBytes(shape, 'ffn');
    const memory = new ArrayBuffer(3 * bytes);
    const place = (at: number, index: number): void =>
      new Uint8Array(memory, at * bytes).set(small.tile('ffn', 0, index).bytes);
    const kept = Math.ceil(bytes * 1.125) + (128 << 10);
    const cache = new OnnxTileCache(ort!, 1, shape, memory, kept);
    const use = (at: number) => cache.with('ffn', at * bytes, async () => undefined);
    place(0, 0);
    place(1, 1);
    // Offset 0 fills the cache, but streams; offset 1 stays and gets the room then.
    await use(0);
    await use(0);
    await use(1);
    expect([cache.conversions, cache.bytes]).toEqual([2, kept]);
    place(0, 2);
    await use(0);
    await use(1);
    expect(cache.conversions).toBe(4);
    for (let pass = 0; pass < 3; pass++) {
      place(0, pass % 3);
      await use(0);
      await use(1);
    }
    expect([cache.conversions, cache.bytes]).toEqual([7, kept]);
    await cache.close();
    expect(cache.bytes).toBe(0);
  });

  it('counts outputs that are not numbers', async () => {
    const shape = smallShape();
    const device = new SmallDevice(backend(), makeSmallModel(shape));
    const steps: Step[] = [
      { op: 'begin', layer: 0, half: 'ffn' },
      { op: 'tiles', layer: 0, half: 'ffn', tiles: device.tiles('ffn', 0) },
    ];
    const batch = makeBatch([0], [2]);
    device.model.setBatch(batch);
    writeEmbedded(device, batch);
    expect((await device.model.run(steps)).saturated).toBe(0);
    device.model.pass.residual[50] = Number.NaN;
    expect((await device.model.run(steps)).saturated).toBe(48 * 3);
    expect(device.model.pass.partial.subarray(48, 96).every(value => value === 0)).toBe(true);
    device.close();
  });

  const wrong: [string, Batch][] = [
    ['too many tokens', makeBatch([0], [41])],
    [
      'a position over the pages',
      { ...makeBatch([0], [1]), positions: Int32Array.of(90), pageTables: [Int32Array.of(0)] },
    ],
    ['a position over the context', { ...makeBatch([0], [1]), positions: Int32Array.of(96) }],
    ['a negative position', { ...makeBatch([0], [1]), positions: Int32Array.of(-1) }],
    ['a page that is not reserved', { ...makeBatch([0], [1]), pageTables: [Int32Array.of(16)] }],
    ['a sequence that is not there', { ...makeBatch([0], [1]), sequences: Int32Array.of(1) }],
    ['a logit row over the tokens', { ...makeBatch([0], [1]), logitRows: Int32Array.of(1) }],
    ['positions that do not rise', { ...makeBatch([0], [2]), positions: Int32Array.of(1, 1) }],
  ];
  it.each(wrong)('refuses a batch with %s', (_, batch) => {
    const device = new SmallDevice(backend(), makeSmallModel(smallShape()));
    expect(() => device.model.setBatch(batch)).toThrow(RangeError);
    device.close();
  });

  it('refuses tiles that cannot be there, a second run, and runs after its end', async () => {
    const device = new SmallDevice(backend(), makeSmallModel(smallShape()));
    const { model } = device;
    model.setBatch(makeBatch([], []));
    await model.run(device.allSteps());
    model.setBatch(makeBatch([0], [1]));
    const refused = (step: Step) =>
      expect(model.run([step])).rejects.toMatchObject({ code: 'KERNEL_FAILED' });
    await refused({ op: 'tiles', layer: 0, half: 'ffn', tiles: [{ offset: 1 << 30, slot: 0 }] });
    await refused({ op: 'tiles', layer: 0, half: 'attention', tiles: [{ offset: 0, slot: 99 }] });
    await refused({ op: 'head-tiles', tiles: [{ offset: device.tiles('head')[0]!.offset, slot: 5 }] });
    const running = model.run(device.allSteps());
    await refused({ op: 'head-begin' });
    expect(() => model.close()).toThrow(/runs a job/);
    await running;
    device.close();
    await refused({ op: 'head-begin' });
  });

  it('copies the constants, and takes new ones', async () => {
    const shape = smallShape();
    const small = makeSmallModel(shape);
    const device = new SmallDevice(backend(), small);
    const batch = makeBatch([0], [3]);
    const before = await runPass(device, batch);
    const constants = new Float32Array(small.constants.slice(0));
    new Float32Array(small.constants).fill(1);
    expect(await runPass(device, batch)).toEqual(before);
    constants[constantOffset(shape, 'finalNorm') + 1]! *= 3;
    device.model.setConstants(constants.buffer);
    expect(await runPass(device, batch)).not.toEqual(before);
    device.close();
  });

  it('detaches released memory', () => {
    const made = backend();
    const memory = made.allocate(8192);
    made.release(memory);
    expect(memory.byteLength).toBe(0);
    expect([made.name, made.exact, made.threads]).toEqual(['onnxruntime', false, 2]);
  });
});
