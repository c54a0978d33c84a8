import { LRUCache } from 'lru-cache';
import * as v from 'valibot';
import { PotluckError } from '../errors/errors.ts';
import type { Checkpoint } from './checkpoint.ts';
import { invalidCheckpoint } from './checkpoint-error.ts';
import { decodeInt4Row, type Int4Layout, type Int4Parts } from './int4-layouts.ts';
import { checkWeights, type MatrixRows } from './stored-rows.ts';

/** What is needed of the folder that holds the packed tensors. */
export interface PackedCheckpoint extends Checkpoint {
  /** Shape and type of a tensor as it is stored, or undefined. */
  stored(tensor: string): { readonly dtype: string; readonly shape: readonly number[] } | undefined;
  /** All bytes of a tensor of at most `limit`. Rejects with CHECKPOINT_INVALID or DISK_READ. */
  readTensor(tensor: string, limit: number): Promise<Uint8Array<ArrayBuffer>>;
}

/** Most bytes of one packed matrix, and of those that are kept. */
const MATRIX_BYTES = 2 ** 28;
const KEPT_BYTES = 2 ** 28;

const quantizationSchema = v.object({
  quant_method: v.string(),
  bits: v.optional(v.number()),
  w_bit: v.optional(v.number()),
  checkpoint_format: v.optional(v.string()),
  version: v.optional(v.string()),
});

/**
 * `checkpoint` with its matrices of 4-bit weights seen as plain ones, where config.json says that it has such; else itself.
 * Throws UNSUPPORTED_MODEL for a quantization of another kind.
 */
export function withInt4Weights(checkpoint: PackedCheckpoint): Checkpoint {
  const config = checkpoint.config as { quantization_config?: unknown } | null;
  const quantization = typeof config === 'object' ? config?.quantization_config : undefined;
  if (quantization === undefined || quantization === null) return checkpoint;
  const layout = layoutOf(quantization, checkpoint.configPath);
  const { quantization_config: _, ...plain } = config as Record<string, unknown>;
  return new Int4Checkpoint(checkpoint, layout, plain);
}

function layoutOf(quantization: unknown, path: string): Int4Layout {
  const parsed = v.safeParse(quantizationSchema, quantization);
  if (!parsed.success) throw invalidCheckpoint(path, `quantization_config: ${parsed.issues[0].message}`);
  const { quant_method: method, bits, w_bit, checkpoint_format: format, version } = parsed.output;
  const kind = `${method}, ${bits ?? w_bit ?? 'unknown'} bits, ${format ?? version ?? 'the usual format'}`;
  if ((bits ?? w_bit) === 4) {
    if (method === 'gptq' && (format ?? 'gptq') === 'gptq') return { method, zeroOffset: 1 };
    if (method === 'gptq' && format === 'gptq_v2') return { method, zeroOffset: 0 };
    if (method === 'awq' && (version ?? 'gemm').toLowerCase() === 'gemm') return { method, zeroOffset: 0 };
  }
  throw new PotluckError(
    'UNSUPPORTED_MODEL',
    `${path}: the weights are quantized (${kind.slice(0, 200)}). Supported: GPTQ and AWQ (gemm) of 4 bits; or use the checkpoint that is not quantized.`,
  );
}

class Int4Checkpoint implements Checkpoint {
  readonly path: string;
  readonly configPath: string;
  readonly config: unknown;
  readonly #inner: PackedCheckpoint;
  readonly #layout: Int4Layout;
  /** The matrices that were read last; a packer reads some of one layer in turn. */
  readonly #kept = new LRUCache<string, Int4Parts>({ maxSize: KEPT_BYTES, sizeCalculation: bytesOf });

  constructor(inner: PackedCheckpoint, layout: Int4Layout, config: unknown) {
    this.path = inner.path;
    this.configPath = inner.configPath;
    this.config = config;
    this.#inner = inner;
    this.#layout = layout;
  }

  has(tensor: string): boolean {
    return this.#inner.has(tensor) || this.#packedName(tensor) !== null;
  }

  *tensors(): Iterable<readonly [string, readonly number[]]> {
    for (const [name, shape] of this.#inner.tensors()) {
      const matrix = /^(.*)\.(qweight|qzeros|scales|g_idx)$/.exec(name);
      if (!matrix) yield [name, shape];
      if (matrix?.[2] !== 'qweight') continue;
      const { rows, columns } = this.#shape(matrix[1]!);
      yield [`${matrix[1]}.weight`, [rows, columns]];
    }
  }

  expect(tensor: string, shape: readonly number[]): void {
    const name = this.#packedName(tensor);
    if (name === null) {
      this.#inner.expect(tensor, shape);
      return;
    }
    const actual = this.#shape(name);
    if (shape.length !== 2 || shape[0] !== actual.rows || shape[1] !== actual.columns)
      throw invalidCheckpoint(
        this.path,
        `tensor ${tensor} has the shape ${JSON.stringify([actual.rows, actual.columns])}, and config.json asks for ${JSON.stringify(shape)}`,
      );
  }

  async readRows(tensor: string, first: number, count: number): Promise<MatrixRows> {
    const name = this.#packedName(tensor);
    if (name === null) return this.#inner.readRows(tensor, first, count);
    const known = this.#kept.get(name);
    const parts = known ?? (await this.#read(name));
    if (known === undefined) this.#kept.set(name, parts);
    if (first < 0 || count < 0 || first + count > parts.rows)
      throw new PotluckError(
        'INTERNAL',
        `${this.path}: rows ${first} to ${first + count} of ${tensor} are outside.`,
      );
    return new Int4Rows(`${this.path}: tensor ${tensor}`, this.#layout, parts, first, count);
  }

  readFile(name: string, limit: number): Promise<Uint8Array | undefined> {
    return this.#inner.readFile(name, limit);
  }

  readJson(name: string, limit: number): Promise<unknown> {
    return this.#inner.readJson(name, limit);
  }

  close(): Promise<void> {
    this.#kept.clear();
    return this.#inner.close();
  }

  /** 'x.weight' -> 'x' where x is packed, else null. */
  #packedName(tensor: string): string | null {
    if (!tensor.endsWith('.weight') || this.#inner.has(tensor)) return null;
    const name = tensor.slice(0, -'.weight'.length);
    return this.#inner.has(`${name}.qweight`) ? name : null;
  }

  /** Throws CHECKPOINT_INVALID where the parts of a matrix do not belong together. */
  #shape(name: string): { readonly rows: number; readonly columns: number; readonly groups: number } {
    const awq = this.#layout.method === 'awq';
    const [a = 0, b = 0] = this.#part(name, 'qweight', 'I32', 2);
    const rows = awq ? b * 8 : b;
    const columns = awq ? a : a * 8;
    const [groups = 0, width] = this.#part(name, 'scales', 'F16', 2);
    const [zeroGroups, zeroWidth] = this.#part(name, 'qzeros', 'I32', 2);
    if (rows % 8 !== 0 || groups < 1 || width !== rows || zeroGroups !== groups || zeroWidth !== rows / 8)
      throw invalidCheckpoint(this.path, `the parts of ${name} have shapes that contradict each other`);
    return { rows, columns, groups };
  }

  #part(name: string, part: string, dtype: string, dimensions: number): readonly number[] {
    const stored = this.#inner.stored(`${name}.${part}`);
    if (stored?.dtype !== dtype || stored.shape.length !== dimensions)
      throw invalidCheckpoint(
        this.path,
        `tensor ${name}.${part} is not ${dtype} of ${dimensions} dimensions`,
      );
    return stored.shape;
  }

  async #read(name: string): Promise<Int4Parts> {
    const { rows, columns, groups } = this.#shape(name);
    const read = async (part: string) =>
      (await this.#inner.readTensor(`${name}.${part}`, MATRIX_BYTES)).buffer;
    return {
      rows,
      columns,
      quanta: new Int32Array(await read('qweight')),
      zeros: new Int32Array(await read('qzeros')),
      scales: new Uint16Array(await read('scales')),
      groups: await this.#groups(name, columns, groups),
    };
  }

  /** The group of each input: GPTQ may say it, else they are of equal size in order. */
  async #groups(name: string, columns: number, groups: number): Promise<Int32Array> {
    if (this.#layout.method === 'awq' || !this.#inner.has(`${name}.g_idx`)) {
      if (columns % groups !== 0)
        throw invalidCheckpoint(this.path, `${columns} inputs of ${name} are not ${groups} equal groups`);
      return Int32Array.from({ length: columns }, (_, i) => Math.floor(i / (columns / groups)));
    }
    const [length] = this.#part(name, 'g_idx', 'I32', 1);
    const said = new Int32Array((await this.#inner.readTensor(`${name}.g_idx`, MATRIX_BYTES)).buffer);
    if (length !== columns || said.some(group => group < 0 || group >= groups))
      throw invalidCheckpoint(
        this.path,
        `${name}.g_idx does not name one of ${groups} groups for each input`,
      );
    return said;
  }
}

const bytesOf = ({ quanta, zeros, scales, groups }: Int4Parts): number =>
  quanta.byteLength + zeros.byteLength + scales.byteLength + groups.byteLength;

class Int4Rows implements MatrixRows {
  readonly #what: string;
  readonly #layout: Int4Layout;
  readonly #parts: Int4Parts;
  readonly #first: number;
  readonly rows: number;

  constructor(what: string, layout: Int4Layout, parts: Int4Parts, first: number, rows: number) {
    this.#what = what;
    this.#layout = layout;
    this.#parts = parts;
    this.#first = first;
    this.rows = rows;
  }

  copy(row: number, first: number, count: number, target: Float32Array): void {
    const { columns } = this.#parts;
    if (row < 0 || row >= this.rows || first < 0 || first + count > columns || count > target.length)
      throw new PotluckError(
        'INTERNAL',
        `${this.#what}: row ${row}, columns ${first} to ${first + count} are outside.`,
      );
    decodeInt4Row(this.#layout, this.#parts, this.#first + row, first, count, target);
    checkWeights(target, count, { what: this.#what, row, first });
  }
}
