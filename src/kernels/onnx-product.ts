import type * as Ort from 'onnxruntime-node';
import { type AccuracyLevel, type ProductWeights, productModelBytes } from './onnx-model-bytes.ts';

/** What is used of the module `onnxruntime-node`. */
export type OrtModule = Pick<typeof Ort, 'InferenceSession' | 'Tensor'>;

/** int8 activations in groups of 32 come near what docs/numerics.md has (blocks of 128); for few tokens they are several times faster than float32 ones. */
const ACCURACY_LEVEL: AccuracyLevel = 4;

/** A matrix product that onnxruntime computes; it owns a copy of the weights. */
export class OnnxProduct {
  readonly rows: number;
  readonly columns: number;
  readonly #ort: OrtModule;
  readonly #session: Ort.InferenceSession;

  private constructor(ort: OrtModule, session: Ort.InferenceSession, weights: ProductWeights) {
    this.#ort = ort;
    this.#session = session;
    this.rows = weights.rows;
    this.columns = weights.columns;
  }

  static async create(
    ort: OrtModule,
    threads: number,
    weights: ProductWeights,
    accuracyLevel = ACCURACY_LEVEL,
  ): Promise<OnnxProduct> {
    const session = await ort.InferenceSession.create(productModelBytes(weights, accuracyLevel), {
      executionProviders: ['cpu'],
      intraOpNumThreads: threads,
      interOpNumThreads: 1,
      enableCpuMemArena: false,
      enableMemPattern: false,
      logSeverityLevel: 3,
      // There is a session for every product: threads of those that do not run must sleep.
      extra: { session: { intra_op: { allow_spinning: '0' } } },
    });
    return new OnnxProduct(ort, session, weights);
  }

  /** x [tokens, columns] float32 -> [tokens, rows] float32. */
  async times(x: Float32Array, tokens: number): Promise<Float32Array> {
    if (tokens === 0) return new Float32Array(0);
    const input = new this.#ort.Tensor('float32', x.subarray(0, tokens * this.columns), [
      tokens,
      this.columns,
    ]);
    const { y } = await this.#session.run({ x: input });
    return y!.data as Float32Array;
  }

  release(): Promise<void> {
    return this.#session.release();
  }
}
