import { expect, test } from 'vitest';
import type { Backend, Step } from '../../src/kernels/backend.ts';
import { SCRIPT_LOGIT_MATH } from '../../src/kernels/logit-math.ts';
import { calibrate } from '../../src/model/calibrate.ts';
import { fixedPointScales, TileOutputs } from '../../src/model/calibrate-ranges.ts';
import type { ModelShape } from '../../src/pack/manifest.ts';
import { plainFeatures } from '../../src/pack/plain-shape.ts';
import { constantOffset, constantsFloats } from '../../src/pack/tile-shape.ts';

const shape: ModelShape = {
  weights: 'w4',
  width: 32,
  layers: 2,
  queryHeads: 4,
  kvHeads: 4,
  headDim: 2,
  ffnWidth: 96,
  vocabulary: 16,
  context: 64,
  normEpsilon: 1e-5,
  ...plainFeatures(2, 2, [1]),
  tiling: { partsPerKvHead: 1, ffnColumns: 32, headRows: 16 },
  hadamard: 0,
  kvBits: 16,
};

/** A backend whose tile `i` gives `output(layer, half, channel)` for every token, in fixed point. */
function scripted(output: (layer: number, half: string, channel: number) => number) {
  const log = { ends: 0, released: 0, closed: 0, saturatedEnds: 0 };
  const backend: Backend = {
    name: 'scripted',
    exact: true,
    threads: 1,
    logitMath: SCRIPT_LOGIT_MATH,
    allocate: bytes => new ArrayBuffer(bytes),
    discard: () => undefined,
    release: () => void log.released++,
    close: () => undefined,
    openModel: ({ maxTokens, ...memory }) => {
      let constants = memory.constants.slice(0);
      const partial = new Int32Array(maxTokens * 32);
      const runStep = (step: Step): number => {
        if (step.op === 'begin') partial.fill(0);
        if (step.op === 'end') log.ends++;
        if (step.op !== 'tiles') return 0;
        const tiles = step.half === 'attention' ? 4 : 3;
        const first = constantOffset(
          shape,
          step.half === 'attention' ? 'attentionScale' : 'ffnScale',
          step.layer,
        );
        const scales = new Float32Array(constants, first * 4, 32);
        let saturated = 0;
        for (const _ of step.tiles)
          for (let i = 0; i < partial.length; i++) {
            const value = output(step.layer, step.half, i % 32) * scales[i % 32]!;
            const limit = (2 ** 31 - 1) / tiles;
            if (!(Math.abs(value) <= limit)) saturated++;
            partial[i]! += Math.round(Math.max(-limit, Math.min(limit, value || 0)));
          }
        if (step.tiles.length > 1) log.saturatedEnds += saturated;
        return saturated;
      };
      return {
        pass: {
          maxTokens,
          maxLogitRows: 1,
          residual: new Float32Array(maxTokens * 32),
          partial,
          logits: new Float32Array(16),
          routes: new Int32Array(0),
        },
        activationBytes: 0,
        setBatch: () => undefined,
        setConstants: changed => {
          constants = changed.slice(0);
        },
        run: async steps => ({
          computeMicroseconds: 0,
          saturated: steps.reduce((sum, step) => sum + runStep(step), 0),
        }),
        close: () => void log.closed++,
      };
    },
  };
  return { backend, log };
}

async function scalesOf(output: (layer: number, half: string, channel: number) => number) {
  const constants = new Float32Array(constantsFloats(shape)).fill(1).buffer;
  const { backend, log } = scripted(output);
  const read: number[] = [];
  await calibrate({
    shape,
    backend,
    constants,
    tokens: [1, 2, 3],
    embed: async () => undefined,
    readTile: async tile => void read.push(tile),
  }).finally(() => expect([log.closed, log.released]).toEqual([1, 1]));
  expect(read).toEqual(Array.from({ length: 14 }, (_, i) => i));
  expect(log).toMatchObject({ ends: 4, saturatedEnds: 0 });
  return (what: 'attentionScale' | 'ffnScale', layer: number) => [
    ...new Float32Array(constants, constantOffset(shape, what, layer) * 4, 32),
  ];
}

test.each([1e-9, 1e-5, 1, 37, 1e6, 1e12])(
  'outputs of %d get the largest scale that leaves headroom',
  async size => {
    const scales = await scalesOf(() => size);
    const most = 2 ** 31 - 1;
    for (const [what, tiles] of [
      ['attentionScale', 4],
      ['ffnScale', 3],
    ] as const)
      for (const layer of [0, 1])
        for (const scale of scales(what, layer)) {
          expect(Number.isInteger(Math.log2(scale))).toBe(true);
          expect(size * tiles * 8 * scale).toBeLessThanOrEqual(most * 1.001);
          expect(size * tiles * 8 * scale * 2).toBeGreaterThan(most * 0.999);
        }
  },
);

test('a channel far over the others gets its own scale, one far under them the median', async () => {
  const scales = (await scalesOf((_layer, _half, channel) => [1e5, 1e-7][channel] ?? 1))('ffnScale', 1);
  expect(scales[2]! / scales[0]!).toBeGreaterThan(5e4);
  expect(scales[1]).toBe(scales[2]);
});

test('each half layer has its own scales', async () => {
  const scales = await scalesOf((layer, half) => (half === 'ffn' ? 100 : 1) * (layer === 1 ? 10000 : 1));
  expect(scales('attentionScale', 0)[0]! / scales('attentionScale', 1)[0]!).toBeGreaterThan(5000);
  expect(scales('attentionScale', 0)[0]! / scales('ffnScale', 0)[0]!).toBeGreaterThan(50);
});

test('outputs that are all zero still get a finite scale', async () => {
  for (const scale of (await scalesOf(() => 0))('attentionScale', 0)) {
    expect(scale).toBeGreaterThan(0);
    expect(Number.isFinite(1 / scale)).toBe(true);
  }
});

test('outputs that are no numbers are an error, and everything is given back', async () => {
  const constants = new ArrayBuffer(constantsFloats(shape) * 4);
  const { backend, log } = scripted(() => Number.NaN);
  const running = calibrate({
    shape,
    backend,
    constants,
    tokens: [1],
    embed: async () => undefined,
    readTile: async () => undefined,
  });
  await expect(running).rejects.toMatchObject({
    code: 'CHECKPOINT_INVALID',
    message: expect.stringContaining('Layer 0, attention'),
  });
  expect(log).toMatchObject({ closed: 1, released: 1 });
});

test('tiles that cancel each other still have room one by one', () => {
  const outputs = new TileOutputs(1, 1, 2);
  outputs.add(Int32Array.of(1000));
  outputs.add(Int32Array.of(-1000));
  const ranges = outputs.ranges(Float32Array.of(1), 0);
  expect(ranges.ranges[0]).toBe(2000);
  expect(fixedPointScales(ranges)[0]).toBe(2 ** 17); // 2000 * 8 * 2^17 = 2.10e9 < 2^31
});
