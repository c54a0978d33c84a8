import type { ModelShape } from '../pack/manifest.ts';
import type { Architecture } from './architecture.ts';
import type { Checkpoint } from './checkpoint.ts';
import { invalidConfig } from './checkpoint-error.ts';
import type { MatrixRows } from './stored-rows.ts';

/** What a layer may have; matrices are stored as [output rows, input columns], the others as vectors. */
export type LayerTensor =
  | 'query'
  | 'key'
  | 'value'
  | 'output'
  | 'gate'
  | 'up'
  | 'down'
  | 'queryBias'
  | 'keyBias'
  | 'valueBias'
  | 'outputBias'
  | 'gateBias'
  | 'upBias'
  | 'downBias'
  | 'attentionNorm'
  | 'ffnNorm'
  | 'attentionOutputNorm'
  | 'ffnOutputNorm'
  | 'queryNorm'
  | 'keyNorm'
  | 'router'
  | 'expertGate'
  | 'expertUp'
  | 'expertDown';

type Shape = Omit<ModelShape, 'weights' | 'tiling' | 'hadamard' | 'kvBits'>;

/** Rows and columns; a vector has one row. */
type Size = readonly [rows: number, columns: number];

/** Sizes of all that layer `layer` of a model has, in the order in which fused tensors hold them. */
function layerTensors(s: Shape, layer: number): Map<LayerTensor, Size> {
  const query = s.queryHeads * s.headDim;
  const keys = s.kvHeads * s.headDim;
  const experts = s.layerFeatures[layer]!.experts ? s.experts : null;
  const ffn = experts ? experts.sharedWidth : s.ffnWidth;
  const whole = s.norms.queryKey === 'whole';
  const all: readonly (readonly [has: boolean, LayerTensor, rows: number, columns: number])[] = [
    [true, 'query', query, s.width],
    [true, 'key', keys, s.width],
    [true, 'value', keys, s.width],
    [true, 'output', s.width, query],
    [ffn > 0, 'gate', ffn, s.width],
    [ffn > 0, 'up', ffn, s.width],
    [ffn > 0, 'down', s.width, ffn],
    [s.biases.queryKeyValue, 'queryBias', 1, query],
    [s.biases.queryKeyValue, 'keyBias', 1, keys],
    [s.biases.queryKeyValue, 'valueBias', 1, keys],
    [s.biases.output, 'outputBias', 1, s.width],
    [s.biases.gateUp && ffn > 0, 'gateBias', 1, ffn],
    [s.biases.gateUp && ffn > 0, 'upBias', 1, ffn],
    [s.biases.down, 'downBias', 1, s.width],
    [s.norms.input, 'attentionNorm', 1, s.width],
    [s.norms.input, 'ffnNorm', 1, s.width],
    [s.norms.output, 'attentionOutputNorm', 1, s.width],
    [s.norms.output, 'ffnOutputNorm', 1, s.width],
    [s.norms.queryKey !== 'none', 'queryNorm', 1, whole ? query : s.headDim],
    [s.norms.queryKey !== 'none', 'keyNorm', 1, whole ? keys : s.headDim],
    [experts !== null, 'router', experts?.count ?? 0, s.width],
    [experts !== null, 'expertGate', experts?.width ?? 0, s.width],
    [experts !== null, 'expertUp', experts?.width ?? 0, s.width],
    [experts !== null, 'expertDown', s.width, experts?.width ?? 0],
  ];
  return new Map(all.flatMap(([has, what, ...size]) => (has ? [[what, size] as const] : [])));
}

/** Rows `from` to `from + count` of a matrix that is one row of a larger one. */
const rowsOfOne = (whole: MatrixRows, from: number, count: number, columns: number): MatrixRows => ({
  rows: count,
  copy: (row, first, length, target) => whole.copy(0, (from + row) * columns + first, length, target),
});

const isVector = (what: LayerTensor): boolean => what.endsWith('Norm') || what.endsWith('Bias');

/** The tensors of one layer, wherever a family of checkpoints keeps them. */
export class LayerReader {
  readonly #checkpoint: Checkpoint;
  readonly #architecture: Architecture;
  readonly #sizes: Map<LayerTensor, Size>;
  readonly #layer: number;
  /** Names of what the layer has, as this checkpoint has them. */
  readonly #names = new Map<LayerTensor, string>();

  constructor(checkpoint: Checkpoint, architecture: Architecture, shape: Shape, layer: number) {
    this.#checkpoint = checkpoint;
    this.#architecture = architecture;
    this.#sizes = layerTensors(shape, layer);
    this.#layer = layer;
    const { names, otherNames } = architecture;
    for (const what of this.#sizes.keys()) {
      const known = [names.layer, ...otherNames].flatMap(each => each[what] ?? []);
      const name = known.find(each => checkpoint.has(this.#filled(each, 0))) ?? known[0];
      if (name !== undefined) this.#names.set(what, name);
    }
  }

  /** Compares the shape of every tensor; `experts` is how many there are. Throws CHECKPOINT_INVALID. */
  check(experts: number): void {
    for (const [what, [, columns]] of this.#sizes) {
      const { whole } = this.#place(what);
      const count = what.startsWith('expert') ? experts : 1;
      const matrix = isVector(what) ? [whole] : [whole, columns];
      if (this.#stacked(what)) this.#checkpoint.expect(this.#name(what, 0), [count, ...matrix]);
      else
        for (let expert = 0; expert < count; expert++)
          this.#checkpoint.expect(this.#name(what, expert), matrix);
    }
  }

  /** Names of all its tensors; `experts` is how many there are. */
  names(experts: number): string[] {
    return [...this.#sizes.keys()].flatMap(what =>
      what.startsWith('expert') && !this.#stacked(what)
        ? Array.from({ length: experts }, (_, expert) => this.#name(what, expert))
        : this.#name(what, 0),
    );
  }

  has(what: LayerTensor): boolean {
    return this.#sizes.has(what);
  }

  /** Rows `first` to `first + count` of a matrix; see Checkpoint.readRows. */
  async rows(what: LayerTensor, first: number, count: number, expert = 0): Promise<MatrixRows> {
    const from = this.#place(what).first + first;
    if (!this.#stacked(what)) return this.#checkpoint.readRows(this.#name(what, expert), from, count);
    const whole = await this.#checkpoint.readRows(this.#name(what, 0), expert, 1);
    return rowsOfOne(whole, from, count, this.#sizes.get(what)![1]);
  }

  /** Whether the matrices of all experts are one tensor, [experts, rows, columns]. */
  #stacked(what: LayerTensor): boolean {
    return what.startsWith('expert') && !this.#names.get(what)?.includes('{expert}');
  }

  /** A vector, whole; empty where the layer has none. */
  async vector(what: LayerTensor): Promise<Float32Array> {
    const size = this.#sizes.get(what);
    if (!size) return new Float32Array(0);
    const values = new Float32Array(size[1]);
    const row = await this.#checkpoint.readRows(this.#name(what, 0), 0, 1);
    row.copy(0, this.#place(what).first, values.length, values);
    return values;
  }

  #filled = (template: string, expert: number): string =>
    template.replace('{layer}', String(this.#layer)).replace('{expert}', String(expert));

  #name(what: LayerTensor, expert: number): string {
    const template = this.#names.get(what);
    if (template === undefined)
      throw invalidConfig(
        this.#checkpoint.configPath,
        `asks for ${what}, which a ${this.#architecture.className} has not`,
      );
    return this.#filled(template, expert);
  }

  /** First row (of a vector: first element) of a part of a fused tensor, and how many the tensor has. */
  #place(what: LayerTensor): { first: number; whole: number } {
    const along = isVector(what) ? 1 : 0;
    let first = 0;
    let whole = 0;
    for (const [other, size] of this.#sizes) {
      if (this.#names.get(other) !== this.#names.get(what)) continue;
      if (other === what) first = whole;
      whole += size[along];
    }
    return { first, whole };
  }
}
