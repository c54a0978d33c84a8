import type { DiskAddon } from '../disk-io/disk-addon.ts';

/** The native addon, whole. Every call checks its arguments and throws RangeError (code KERNEL_FAILED). */
export interface Addon extends DiskAddon, KernelTests, Rounding, LimitPrograms {
  /** Zeroed memory outside the V8 heap, 4096-byte aligned. */
  allocate(bytes: number): ArrayBuffer;
  /** Gives the pages inside a part of memory of `allocate` back; they are zero then. */
  discard(memory: ArrayBuffer, offset: number, bytes: number): void;
  /** Detaches and unmaps memory of `allocate`. Throws while an open model or a read uses it. */
  release(memory: ArrayBuffer): void;
  kernels(): KernelList;
  /** `kernel` is '' for what POTLUCK_KERNEL names, or the fastest. Throws an Error of code KERNEL_UNKNOWN. */
  createPool(threads: number, kernel: string): NativePool;
  /** Ends the threads. Throws while a job runs. */
  closePool(pool: NativePool): void;
  /**
   * numbers: see `shapeNumbers` in shape-numbers.ts. constants: constantsFloats float32, copied. weights: memory of
   * `allocate`, in use until closeModel. The four buffers are memory of `allocate` too, in use until closeModel.
   */
  createModel(
    pool: NativePool,
    numbers: Float64Array,
    constants: ArrayBuffer,
    weights: ArrayBuffer,
  ): {
    model: NativeModel;
    /** [maxTokens, width] float32 */
    residual: ArrayBuffer;
    /** [maxTokens, width] int32 */
    partial: ArrayBuffer;
    /** [maxLogitRows, paddedVocabulary] float32 */
    logits: ArrayBuffer;
    /** [maxTokens, experts of a token] int32 */
    routes: ArrayBuffer;
    /** Bytes of further memory that passes work in. */
    scratchBytes: number;
  };
  closeModel(model: NativeModel): void;
  /** Copies the constants anew. Throws while the model runs. */
  setConstants(model: NativeModel, constants: ArrayBuffer): void;
  /**
   * Page table i is pages[pageTableStarts[i] .. pageTableStarts[i + 1]]. Token t turns by row lengths[t] of frequencies,
   * [rows, pairs of all rotations].
   */
  setBatch(
    model: NativeModel,
    positions: Int32Array,
    sequences: Int32Array,
    pages: Int32Array,
    pageTableStarts: Int32Array,
    logitRows: Int32Array,
    lengths: Int32Array,
    frequencies: Float64Array,
  ): void;
  /** program: words of `ProgramEncoder`, read before the call returns. eager: see BackendModel.run. */
  run(
    model: NativeModel,
    program: Float64Array,
    eager: boolean,
  ): Promise<{ computeMicroseconds: number; saturated: number }>;
  /** See LogitMath, whose functions these are; with the kernels of the pool. */
  greatest(logits: Float32Array): number;
  weigh(pool: NativePool, logits: Float32Array, max: number, inverse: number, weights: Float32Array): void;
  /** The native idea of src/pack/tile-shape.ts, for the test that compares them. */
  tileShape(numbers: Float64Array): Float64Array;
}

/** Programs that show what a processor and its memory can do at most, on threads of their own. */
export interface LimitPrograms {
  limitPrograms(): {
    /** Ways to read memory; which is the fastest is to be measured. */
    readonly read: readonly string[];
    /** Instructions for 8-bit dot products that this processor has; `multiplyAdds` of one round. */
    readonly dot: readonly { readonly name: string; readonly multiplyAdds: number }[];
  };
  /**
   * Reads the first `bytes` of `memory` (of `allocate`; whole MiB are read) `repeats` times, shared out over `threads`
   * threads; resolves to the seconds. The memory should be much larger than the last cache.
   */
  measureRead(
    memory: ArrayBuffer,
    bytes: number,
    program: string,
    threads: number,
    repeats: number,
  ): Promise<number>;
  /** Runs `rounds` rounds of a dot program, shared out over `threads` threads; resolves to the seconds. */
  measureDot(program: string, threads: number, rounds: number): Promise<number>;
}

/**
 * Bytes of products and of their factor: the upper triangle of [columns, columns] float64, for each group of 32 columns the rows down to
 * the diagonal ([32, 32], [64, 32], ...), one behind the other.
 */
export const triangleBytes = (columns: number): number => ((columns * (columns + 32)) / 2) * 8;

/**
 * Error-compensating rounding (GPTQ); see native/gptq.h. All buffers are memory of `allocate`, in use until the promise
 * settles. Same bits on every processor and with any `threads`. Reject with a RangeError of code KERNEL_FAILED.
 */
export interface Rounding {
  /** products (see triangleBytes) += X^T X of inputs X ([tokens, columns] float32). */
  addProducts(
    products: ArrayBuffer,
    columns: number,
    inputs: ArrayBuffer,
    tokens: number,
    threads: number,
  ): Promise<void>;
  /** Replaces products by their factor; `damping` times the mean of the diagonal is added to the diagonal first. */
  factorProducts(products: ArrayBuffer, columns: number, damping: number, threads: number): Promise<void>;
  /** Rounds weights ([rows, columns] float32) to nibbles ([rows, columns] uint8) and scales ([rows, columns / 32] IEEE half). */
  roundRows(
    factor: ArrayBuffer,
    columns: number,
    weights: ArrayBuffer,
    rows: number,
    nibbles: ArrayBuffer,
    scales: ArrayBuffer,
    threads: number,
  ): Promise<void>;
}

export interface KernelList {
  /** Fastest first; always ends with 'reference'. */
  readonly available: readonly string[];
  readonly unavailable: readonly { readonly name: string; readonly reason: string }[];
  /** What createPool takes for ''. */
  readonly selected: string;
}

/** Opaque: threads and the kernels that they run. */
export interface NativePool {
  readonly kernel: string;
}

/** Opaque. */
export interface NativeModel {
  readonly model?: never;
}

/** Single operations of a named kernel, for tests only. Shapes are in comments of native/test_calls.cc. */
export interface KernelTests {
  /** x is quantized by the reference, so that only the matrix product differs. */
  testW4(
    kernel: string,
    panel: Uint8Array,
    blocks: number,
    columns: number,
    x: Float32Array,
    tokens: number,
    bits: 4 | 8,
    out: Float32Array,
  ): void;
  testBf16(
    kernel: string,
    panel: Uint8Array,
    blocks: number,
    columns: number,
    x: Float32Array,
    tokens: number,
    out: Float32Array,
  ): void;
  testQuantize(
    kernel: string,
    x: Float32Array,
    bits: 4 | 8,
    q: Int8Array,
    scale: Float32Array,
    bias: Int32Array,
  ): void;
  testHadamard(kernel: string, x: Float32Array): void;
  testRmsnorm(kernel: string, x: Float32Array, weight: Float32Array, epsilon: number, y: Float32Array): void;
  testRope(kernel: string, x: Float32Array, position: number, frequencies: Float32Array, scale: number): void;
  testExp(kernel: string, x: Float32Array, y: Float32Array): void;
  testSilu(kernel: string, gate: Float32Array, up: Float32Array, h: Float32Array): void;
  testGelu(kernel: string, gate: Float32Array, up: Float32Array, h: Float32Array): void;
  testSoftCap(kernel: string, x: Float32Array, cap: number): void;
  /** Returns how many were saturated. */
  testFixed(kernel: string, v: Float32Array, scale: Float32Array, limit: number, partial: Int32Array): number;
  testResidual(kernel: string, residual: Float32Array, partial: Int32Array, inverse: Float32Array): void;
  testStoreKv(
    kernel: string,
    planes: 1 | 2,
    key: Float32Array,
    value: Float32Array,
    at: number,
    page: Uint8Array,
  ): void;
  testAttention(
    kernel: string,
    kvBits: 4 | 8 | 16 | 32,
    q: Float32Array,
    heads: number,
    headDim: number,
    kv: Uint8Array,
    pages: Int32Array,
    positions: number,
    first: number,
    softCap: number,
    out: Float32Array,
  ): void;
}
