import { afterAll, describe, expect, it } from 'vitest';
import type { Backend, Batch, Step } from '../../src/kernels/backend.ts';
import { createNativeBackend } from '../../src/kernels/native-backend.ts';
import type { ModelShape } from '../../src/pack/manifest.ts';
import { addon, floatBits, machineVariants } from './addon-under-test.ts';
import { oracleLogits } from './layer-oracle.ts';
import {
  HALVES,
  makeBatch,
  makeSmallModel,
  runPass,
  SmallDevice,
  smallShape,
  writeEmbedded,
} from './small-model.ts';

const variants = machineVariants();
const backends: Backend[] = [];
const backend = (kernel: string, threads = 1): Backend => {
  const made = createNativeBackend(addon, { threads, kernel });
  backends.push(made);
  return made;
};
afterAll(() => {
  for (const made of backends) made.close();
});

const SHAPES: readonly [string, ModelShape][] = [
  ['w4', smallShape()],
  ['bf16', smallShape({ weights: 'bf16' })],
  [
    'w4, 6 heads a tile',
    smallShape({ queryHeads: 6, kvHeads: 1, headDim: 18, width: 56, rotations: rotations(18) }),
  ],
  [
    'w4, KV heads in two parts',
    smallShape({ width: 64, headDim: 32, rotations: rotations(32), tiling: tiling(2) }),
  ],
  ['w4, rotated', smallShape({ hadamard: 32, tiling: tiling(1) })],
  [
    'w4, rotated with its values, KV in 8 bits',
    smallShape({ width: 64, headDim: 32, rotations: rotations(32), hadamard: 32, kvBits: 8 }),
  ],
  [
    'w4, rotated with its values, KV in 4 bits',
    smallShape({ width: 72, headDim: 64, rotations: rotations(64), hadamard: 32, kvBits: 4 }),
  ],
  ['w4, KV in 4 bits of a head that is no group', smallShape({ kvBits: 4 })],
  ['bf16, KV heads in two parts', smallShape({ weights: 'bf16', width: 41, tiling: tiling(2) })],
];

function rotations(headDim: number): ModelShape['rotations'] {
  const frequencies = Array.from({ length: headDim / 2 }, (_, i) => 50 ** ((-2 * i) / headDim));
  return [{ frequencies, magnitude: 1, beyond: null }];
}
function tiling(partsPerKvHead: number): ModelShape['tiling'] {
  return { partsPerKvHead, ffnColumns: 64, headRows: 16 };
}

const bits = (rows: readonly Float32Array[]) => rows.map(floatBits);

/** Root mean square of the difference over that of the exact values. */
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

/** Logits of 19 tokens of one sequence and 6 of another, in one pass. */
const WHOLE = makeBatch([0, 0], [19, 6]);
async function wholePass(made: Backend, shape: ModelShape): Promise<Float32Array[]> {
  const device = new SmallDevice(made, makeSmallModel(shape));
  const rows = await runPass(device, WHOLE);
  device.close();
  return rows;
}

describe.each(SHAPES)('%s', (_, shape) => {
  it('gives the logits that double precision gives, up to its roundings', async () => {
    const small = makeSmallModel(shape);
    const rows = await wholePass(backend('reference'), shape);
    const exact = [...oracleLogits(small, 0, 19), ...oracleLogits(small, 1, 6)];
    // bf16: a few hundred roundings in a row, of 2^-24 each. w4: an activation may round to the neighbouring int8, which
    // is a step of the largest in its group, in one input of `width`.
    // Keys and values in 4 bits are rounded by up to half a step of 1 / 8 of the largest; in 8 the rounding of queries and
    // weights counts as well.
    const kv = shape.kvBits === 4 ? 1 / 8 : shape.kvBits === 8 ? 1 / 32 : 0;
    const bound = shape.weights === 'bf16' ? 300 * 2 ** -24 : 1 / 127 / Math.sqrt(shape.width) + kv;
    expect(relativeError(rows, exact)).toBeLessThan(bound);
  });

  it.each(variants)(
    'gives the same bits with %s as with the reference, and with 1, 2 and 3 threads',
    async kernel => {
      const expected = bits(await wholePass(backend('reference'), shape));
      for (const threads of [1, 2, 3])
        expect(bits(await wholePass(backend(kernel, threads), shape))).toEqual(expected);
    },
  );

  it('gives the same bits token by token as in one pass', async () => {
    const small = makeSmallModel(shape);
    const made = backend('', 2);
    const whole = await wholePass(made, shape);
    const device = new SmallDevice(made, small);
    const first = await runPass(device, makeBatch([0, 0], [14, 3]));
    expect(bits(first.slice(0, 14))).toEqual(bits(whole.slice(0, 14)));
    expect(bits(first.slice(14))).toEqual(bits(whole.slice(19, 22)));
    for (let t = 0; t < 3; t++) {
      const both = await runPass(device, makeBatch([14 + t, 3 + t], [1, 1]));
      expect(bits(both)).toEqual(bits([whole[14 + t]!, whole[22 + t]!]));
    }
    expect(bits(await runPass(device, makeBatch([17], [1])))).toEqual(bits([whole[17]!]));
    expect(bits(await runPass(device, makeBatch([18], [1])))).toEqual(bits([whole[18]!]));
    device.close();
  });

  it('gives the same bits in one pass of many tokens as in small ones', async () => {
    const made = backend('', 2);
    const options = { maxTokens: 168, kvPages: 12 };
    const many = new SmallDevice(made, makeSmallModel(shape), options);
    const whole = await runPass(many, makeBatch([0, 0, 0], [60, 61, 46]));
    const few = new SmallDevice(made, makeSmallModel(shape), options);
    const parts: Float32Array[][] = [[], [], []];
    for (let at = 0; at < 61; at += 10) {
      const counts = [60, 61, 46].map(count => Math.min(10, Math.max(0, count - at)));
      const rows = await runPass(few, makeBatch([at, at, at], counts));
      counts.forEach((count, i) => {
        parts[i]!.push(...rows.splice(0, count));
      });
    }
    expect(bits(whole)).toEqual(bits(parts.flat()));
    many.close();
    few.close();
  });

  it('gives the same bits where JavaScript wakes long before the end, and where a program has two heads', async () => {
    const made = backend('', 1);
    const device = new SmallDevice(made, makeSmallModel(shape));
    const head = device.allSteps().slice(-2);
    const expected = bits(await wholePass(made, shape));
    device.model.setBatch(WHOLE);
    writeEmbedded(device, WHOLE);
    // After this one a head is taken to be short.
    await device.model.run(head, true);
    const layers = Array.from({ length: 40 }, () => device.allSteps().slice(0, -2)).flat();
    await device.model.run([...head, ...layers, ...head], true);
    writeEmbedded(device, WHOLE);
    await device.model.run(device.allSteps(), true);
    expect(bits(device.logits(25))).toEqual(expected);
    device.close();
  });

  it('gives the same bits tile by tile as in one list', async () => {
    const made = backend('', 2);
    const device = new SmallDevice(made, makeSmallModel(shape));
    device.model.setBatch(WHOLE);
    writeEmbedded(device, WHOLE);
    for (const step of device.allSteps()) {
      if (step.op !== 'tiles' && step.op !== 'head-tiles') await device.model.run([step]);
      else for (const tile of [...step.tiles].reverse()) await device.model.run([{ ...step, tiles: [tile] }]);
    }
    expect(bits(device.logits(25))).toEqual(bits(await wholePass(made, shape)));
    device.close();
  });

  it('gives the same bits on two devices that add their partial sums', async () => {
    const small = makeSmallModel(shape);
    const made = backend('', 1);
    const devices = [0, 1].map(
      mine => new SmallDevice(made, small, { mine: (_, layer, index) => (layer + index) % 2 === mine }),
    );
    await passOfTwo(devices, WHOLE);
    const logits = devices[0]!.logits(25);
    const others = devices[1]!.logits(25);
    const { headRows } = shape.tiling;
    const merged = logits.map((row, t) =>
      row.map((value, i) => (Math.floor(i / headRows) % 2 === 0 ? value : others[t]![i]!)),
    );
    expect(bits(merged)).toEqual(bits(await wholePass(made, shape)));
    for (const device of devices) device.close();
  });
});

async function passOfTwo(devices: readonly SmallDevice[], batch: Batch): Promise<void> {
  const { shape } = devices[0]!;
  for (const device of devices) {
    device.model.setBatch(batch);
    writeEmbedded(device, batch);
  }
  const everywhere = async (step: (device: SmallDevice) => Step) => {
    for (const device of devices) await device.model.run([step(device)]);
  };
  for (let layer = 0; layer < shape.layers; layer++)
    for (const half of HALVES) {
      await everywhere(() => ({ op: 'begin', layer, half }));
      await everywhere(device => ({ op: 'tiles', layer, half, tiles: device.tiles(half, layer) }));
      const [a, b] = devices.map(device => device.model.pass.partial);
      for (let i = 0; i < batch.positions.length * shape.width; i++) a![i] = b![i] = a![i]! + b![i]!;
      await everywhere(() => ({ op: 'end', layer, half }));
    }
  await everywhere(() => ({ op: 'head-begin' }));
  await everywhere(device => ({ op: 'head-tiles', tiles: device.tiles('head') }));
}

describe('saturation', () => {
  it.each(variants)('%s counts outputs that are not numbers or do not fit', async kernel => {
    const shape = smallShape();
    const device = new SmallDevice(backend(kernel), makeSmallModel(shape));
    device.model.setBatch(makeBatch([0], [2]));
    const steps: Step[] = [
      { op: 'begin', layer: 0, half: 'ffn' },
      { op: 'tiles', layer: 0, half: 'ffn', tiles: device.tiles('ffn', 0) },
    ];
    for (const [bad, count] of [
      [0, 0],
      [Number.NaN, 48 * 3],
      [Number.POSITIVE_INFINITY, 48 * 3],
    ] as const) {
      writeEmbedded(device, makeBatch([0], [2]));
      if (bad !== 0) device.model.pass.residual[50] = bad;
      const { saturated } = await device.model.run(steps);
      expect(saturated).toBe(count);
      expect(device.model.pass.partial.subarray(48, 96).every(value => value === 0)).toBe(count > 0);
      expect(device.model.pass.partial.subarray(0, 48).some(value => value !== 0)).toBe(true);
    }
    device.close();
  });
});

describe('lifetime', () => {
  it('runs an empty program and an empty batch', async () => {
    const device = new SmallDevice(backend('', 2), makeSmallModel(smallShape()));
    expect((await device.model.run([])).saturated).toBe(0);
    device.model.setBatch(makeBatch([], []));
    await device.model.run(device.allSteps());
    device.close();
  });

  it('runs one job at a time, and cannot be closed meanwhile', async () => {
    const made = createNativeBackend(addon, { threads: 2 });
    const device = new SmallDevice(made, makeSmallModel(smallShape()));
    device.model.setBatch(WHOLE);
    const running = device.model.run(device.allSteps());
    await expect(device.model.run([])).rejects.toMatchObject({ code: 'KERNEL_FAILED' });
    expect(() => device.model.setBatch(WHOLE)).toThrow(RangeError);
    expect(() => device.model.close()).toThrow(/runs a job/);
    await running;
    device.close();
    device.model.close();
    await expect(device.model.run([])).rejects.toThrow(/closed/);
    made.close();
    made.close();
    expect(() => new SmallDevice(made, makeSmallModel(smallShape()))).toThrow(/closed/);
  });

  it('keeps memory that is in use, and detaches what is released', () => {
    const made = backend('');
    const memory = made.allocate(5000);
    expect(memory.byteLength).toBe(5000);
    expect(new Uint8Array(memory).every(value => value === 0)).toBe(true);
    const shape = smallShape();
    const model = made.openModel({
      shape,
      constants: makeSmallModel(shape).constants,
      weights: memory,
      attentionTiles: 0,
      kvPages: 0,
      maxTokens: 1,
      maxLogitRows: 1,
    });
    expect(() => made.release(memory)).toThrow(/in use/);
    expect(() => made.release(model.pass.residual.buffer as ArrayBuffer)).toThrow(/in use/);
    model.close();
    expect(model.pass.residual.length).toBe(0);
    made.release(memory);
    expect(memory.byteLength).toBe(0);
    expect(() => made.release(memory)).toThrow(/detached/);
    expect(() => made.release(new ArrayBuffer(8))).toThrow(/allocate/);
  });

  it('says which kernels there are where one is unknown', () => {
    expect(() => createNativeBackend(addon, { threads: 1, kernel: 'mmx' })).toThrow(
      expect.objectContaining({ code: 'KERNEL_UNKNOWN', message: expect.stringContaining('reference') }),
    );
    expect(() => createNativeBackend(addon, { threads: 0 })).toThrow(
      expect.objectContaining({ code: 'KERNEL_FAILED' }),
    );
  });

  it('knows the kernels of every processor, and refuses by name those that cannot run here', () => {
    const { available, unavailable } = addon.kernels();
    const names = [...available, ...unavailable.map(({ name }) => name)].sort();
    const x86 = ['avx2', 'avx-vnni', 'avx512-vnni'];
    const arm = ['neon', 'neon-dot', 'neon-i8mm'];
    expect(names).toEqual(['reference', ...x86, ...arm].sort());
    expect(available.at(-1)).toBe('reference');
    for (const { name, reason } of unavailable)
      expect(() => createNativeBackend(addon, { threads: 1, kernel: name })).toThrow(
        expect.objectContaining({ code: 'KERNEL_UNKNOWN', message: expect.stringContaining(reason) }),
      );
  });

  it.each(variants)('takes %s from POTLUCK_KERNEL', kernel => {
    const before = process.env.POTLUCK_KERNEL;
    process.env.POTLUCK_KERNEL = kernel;
    try {
      expect(addon.kernels().selected).toBe(kernel);
      expect(backend('').name).toBe(kernel);
    } finally {
      if (before === undefined) delete process.env.POTLUCK_KERNEL;
      else process.env.POTLUCK_KERNEL = before;
    }
  });
});
