import { fileURLToPath } from 'node:url';
import type { Addon, NativeModel, NativePool } from '../../src/kernels/addon.ts';
import { ProgramEncoder } from '../../src/kernels/program.ts';
import { shapeNumbers } from '../../src/kernels/shape-numbers.ts';
import { tileBytes } from '../../src/pack/tile-shape.ts';
import { makeSmallModel, smallShape } from './small-model.ts';

/** A call that is right, with memory of its own around its arrays. */
export interface Call {
  readonly args: unknown[];
  /** Gives back what the call made, or what it was given. */
  readonly end?: (made: unknown) => void;
}

const POISON = 0x5a;
const AROUND = 256;

type TypedArray = Int8Array | Uint8Array | Int32Array | Float32Array | Float64Array;

/** Arrays between bytes that nobody may write. */
export class Guarded {
  readonly #whole: Uint8Array[] = [];
  readonly #from: TypedArray[] = [];

  array<T extends TypedArray>(values: T): T {
    const whole = new Uint8Array(values.byteLength + 2 * AROUND).fill(POISON);
    whole.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), AROUND);
    const type = values.constructor as new (buffer: ArrayBuffer, offset: number, length: number) => T;
    const inner = new type(whole.buffer, AROUND, values.length);
    this.#whole.push(whole);
    this.#from.push(inner);
    return inner;
  }

  isIntact(): boolean {
    return this.#whole.every((whole, i) => {
      const end = AROUND + this.#from[i]!.byteLength;
      return whole.every((byte, at) => byte === POISON || (at >= AROUND && at < end));
    });
  }
}

const shape = smallShape({
  layerFeatures: [false, true].map(experts => ({ window: 0, rotation: 0, experts })),
  experts: { count: 4, perToken: 2, width: 64, normalized: true, sharedWidth: 32 },
});
const LIMITS = { attentionTiles: 3, kvPages: 5, maxTokens: 4, maxLogitRows: 2 };
const MIB = 1 << 20;

/** Functions that take nothing. */
export const WITHOUT_ARGUMENTS = ['kernels', 'crc32cVariants', 'limitPrograms'];
/** What may be left out: name and index of the argument. */
export const OPTIONAL: Readonly<Record<string, readonly number[]>> = { crc32c: [1, 2] };

/** Arrays that may be shorter: by their length they say how much there is. */
export const SAY_HOW_MUCH: Readonly<Record<string, readonly number[]>> = {
  setBatch: [5],
  run: [1],
  greatest: [0],
  weigh: [1],
  testQuantize: [1],
  testHadamard: [1],
  testRmsnorm: [1],
  testRope: [1],
  testExp: [1],
  testSilu: [1],
  testGelu: [1],
  testSoftCap: [1],
  testFixed: [1],
  testResidual: [2],
  testStoreKv: [2],
  crc32c: [0],
  readCached: [2],
};

/** For each function of the addon that takes something, a right call made anew. */
export function rightCalls(addon: Addon): Readonly<Record<string, (guarded: Guarded) => Call>> {
  const { constants } = makeSmallModel(shape);
  const weightsBytes = tileBytes(shape, 'attention') * 3;
  const frequencies = Float64Array.from(shape.rotations[0]!.frequencies);
  const weights = addon.allocate(weightsBytes);
  const memory = addon.allocate(MIB);
  const small = [
    addon.allocate(8192),
    addon.allocate(8192),
    addon.allocate(8192),
    addon.allocate(8192),
  ] as const;
  const pool = addon.createPool(2, 'reference');
  const model = addon.createModel(pool, shapeNumbers(shape, LIMITS), constants, weights).model;
  const reader = addon.createReader(1);
  const path = fileURLToPath(new URL('../../package-lock.json', import.meta.url));
  const { file } = addon.openFile(path, false);
  const kernel = addon.kernels().available[0]!;
  const program = new ProgramEncoder().encode([
    { op: 'begin', layer: 0, half: 'attention' },
    { op: 'tiles', layer: 0, half: 'attention', tiles: [{ offset: 0, slot: 0 }] },
    { op: 'end', layer: 0, half: 'attention' },
    { op: 'begin', layer: 1, half: 'ffn' },
    { op: 'expert-tiles', layer: 1, tiles: [{ offset: 0, slot: 3 }] },
    { op: 'head-begin' },
    { op: 'head-tiles', tiles: [{ offset: 0, slot: 32 }] },
  ]);
  const ints = (...values: number[]) => Int32Array.of(...values);
  const floats = (count: number) => Float32Array.from({ length: count }, (_, i) => Math.sin(i * 7 + 1));
  const bytes = (count: number) => Uint8Array.from({ length: count }, (_, i) => i * 37);
  const plain = (...args: unknown[]): Call => ({ args });
  const limits = addon.limitPrograms();
  addon.setBatch(model, ints(0), ints(0), ints(0), ints(0, 1), ints(), ints(0), frequencies);

  return {
    allocate: () => ({ args: [8192], end: made => addon.release(made as ArrayBuffer) }),
    discard: () => plain(memory, 0, 4096),
    release: () => plain(addon.allocate(4096)),
    createPool: () => ({ args: [2, kernel], end: made => addon.closePool(made as NativePool) }),
    closePool: () => plain(addon.createPool(1, 'reference')),
    createModel: g => ({
      args: [pool, g.array(shapeNumbers(shape, LIMITS)), constants, weights],
      end: made => addon.closeModel((made as { model: NativeModel }).model),
    }),
    closeModel: () => plain(addon.createModel(pool, shapeNumbers(shape, LIMITS), constants, weights).model),
    setConstants: () => plain(model, constants),
    setBatch: g =>
      plain(
        model,
        g.array(ints(0, 17, 3)),
        g.array(ints(0, 0, 1)),
        g.array(ints(0, 1, 4)),
        g.array(ints(0, 2, 3)),
        g.array(ints(1, 2)),
        g.array(ints(0, 0, 0)),
        g.array(frequencies),
      ),
    run: g => plain(model, g.array(program), true),
    greatest: g => plain(g.array(floats(21))),
    weigh: g => plain(pool, g.array(floats(21)), 1, 0.5, g.array(floats(21))),
    tileShape: g => plain(g.array(shapeNumbers(shape, LIMITS))),
    testW4: g =>
      plain(kernel, g.array(bytes(2 * 2 * 288)), 2, 64, g.array(floats(192)), 3, 8, g.array(floats(96))),
    testBf16: g =>
      plain(kernel, g.array(bytes(2 * 64 * 32)), 2, 64, g.array(floats(192)), 3, g.array(floats(96))),
    testQuantize: g =>
      plain(
        kernel,
        g.array(floats(64)),
        8,
        g.array(new Int8Array(64)),
        g.array(floats(2)),
        g.array(ints(0, 0)),
      ),
    testHadamard: g => plain(kernel, g.array(floats(64))),
    testRmsnorm: g => plain(kernel, g.array(floats(40)), g.array(floats(40)), 1e-5, g.array(floats(64))),
    testRope: g => plain(kernel, g.array(floats(40)), 7, g.array(floats(20)), 0.5),
    testExp: g => plain(kernel, g.array(floats(21)), g.array(floats(21))),
    testSilu: g => plain(kernel, g.array(floats(21)), g.array(floats(21)), g.array(floats(21))),
    testGelu: g => plain(kernel, g.array(floats(21)), g.array(floats(21)), g.array(floats(21))),
    testSoftCap: g => plain(kernel, g.array(floats(21)), 30),
    testFixed: g => plain(kernel, g.array(floats(21)), g.array(floats(21)), 1e6, g.array(new Int32Array(21))),
    testResidual: g => plain(kernel, g.array(floats(21)), g.array(new Int32Array(21)), g.array(floats(21))),
    testStoreKv: g => plain(kernel, 1, g.array(floats(40)), g.array(floats(40)), 5, g.array(bytes(1984))),
    testAttention: g =>
      plain(
        kernel,
        16,
        g.array(floats(80)),
        2,
        40,
        g.array(bytes(2 * 40 * 2 * 32 * 2)),
        g.array(ints(1, 0)),
        50,
        3,
        0,
        g.array(floats(80)),
      ),
    measureRead: () => plain(memory, MIB, limits.read[0], 1, 1),
    measureDot: () => plain(limits.dot[0]!.name, 1, 1),
    addProducts: () => plain(small[0], 32, small[1], 2, 1),
    factorProducts: () => plain(small[0], 32, 0.01, 1),
    roundRows: () => plain(small[0], 32, small[1], 2, small[2], small[3], 1),
    createReader: () => ({ args: [1], end: made => addon.closeReader(made as never) }),
    closeReader: () => plain(addon.createReader(1)),
    openFile: () => ({ args: [path, false], end: made => addon.closeFile((made as { file: never }).file) }),
    closeFile: () => plain(addon.openFile(path, false).file),
    readRun: g =>
      plain(reader, file, 0, memory, 4096, g.array(Float64Array.of(4096, -1, 8192, -1)), () => 'read'),
    readCached: g => plain(file, 0, g.array(bytes(100))),
    crc32c: g => plain(g.array(bytes(100)), 5, 'table'),
  };
}
