import { PotluckError } from '../../errors/errors.ts';
import { type FileSystem, type OpenFile, openToRead, readFully } from '../../pack/file-system.ts';
import type { Checkpoint } from '../checkpoint.ts';
import { invalidCheckpoint } from '../checkpoint-error.ts';
import { F32 } from '../element-formats.ts';
import { StoredRows } from '../stored-rows.ts';
import { ggufConfig } from './config.ts';
import { findGgufFamily } from './families.ts';
import { type GgufTensor, readGgufHeader } from './header.ts';
import { MetadataFields } from './metadata-fields.ts';
import type { RopeFactors } from './rope-scaling.ts';
import { interleavedRows, type NamedTensor, nameTensors } from './tensor-names.ts';
import { READABLE_TYPES } from './tensor-types.ts';
import { type TokenizerFiles, tokenizerFiles } from './tokenizer-files.ts';

/** Most divisors of RoPE frequencies. */
const MOST_FACTORS = 4096;

/** A model in a GGUF file, seen as a folder of Hugging Face's layout. */
export class GgufCheckpoint implements Checkpoint {
  readonly path: string;
  readonly configPath: string;
  readonly config: unknown;
  readonly #file: OpenFile;
  readonly #tensors: ReadonlyMap<string, NamedTensor>;

  readonly #fields: MetadataFields;
  /** Made when it is asked for first; null: the file has none. */
  #files: TokenizerFiles | null | undefined;

  private constructor(
    file: OpenFile,
    fields: MetadataFields,
    config: unknown,
    tensors: ReadonlyMap<string, NamedTensor>,
  ) {
    this.path = fields.path;
    this.configPath = fields.path;
    this.config = config;
    this.#file = file;
    this.#fields = fields;
    this.#tensors = tensors;
  }

  /** Rejects with CHECKPOINT_INVALID, UNSUPPORTED_MODEL or DISK_READ. */
  static async open(fileSystem: FileSystem, path: string): Promise<GgufCheckpoint> {
    const file = await openToRead(fileSystem, path);
    try {
      const { metadata, tensors } = await readGgufHeader(file, path);
      const fields = new MetadataFields(metadata, path);
      if ((fields.optionalNumber('split.count') ?? 1) > 1)
        throw new PotluckError(
          'UNSUPPORTED_MODEL',
          `${path}: is one of ${fields.number('split.count')} parts. Join them (llama-gguf-split --merge) or use a file that is whole.`,
        );
      const family = findGgufFamily(fields);
      const query = fields.number('{arch}.attention.head_count');
      const keyValue = fields.optionalNumber('{arch}.attention.head_count_kv') ?? query;
      const named = nameTensors(tensors, family, { query, keyValue });
      const embedding = named.get('model.embed_tokens.weight');
      if (!embedding) throw invalidCheckpoint(path, 'has no tensor token_embd.weight');
      const config = ggufConfig(family, fields, {
        vocabulary: embedding.shape[0] ?? 0,
        hasHead: named.has('lm_head.weight'),
        hasAttentionBias: named.has('model.layers.0.self_attn.q_proj.bias'),
        hasFfnBias: ['gate', 'up', 'down'].some(part => named.has(`model.layers.0.mlp.${part}_proj.bias`)),
        ropeFactors: await readRopeFactors(file, path, tensors),
      });
      return new GgufCheckpoint(file, fields, config, named);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  has(tensor: string): boolean {
    return this.#tensors.has(tensor);
  }

  *tensors(): Iterable<readonly [string, readonly number[]]> {
    for (const [name, { shape }] of this.#tensors) yield [name, shape];
  }

  expect(tensor: string, shape: readonly number[]): void {
    const actual = this.#find(tensor).shape;
    if (actual.length !== shape.length || actual.some((n, i) => n !== shape[i]))
      throw invalidCheckpoint(
        this.path,
        `tensor ${tensor} has the shape ${JSON.stringify(actual)}, and the metadata asks for ${JSON.stringify(shape)}`,
      );
  }

  async readRows(tensor: string, first: number, count: number): Promise<StoredRows> {
    const { stored, shape, firstRow, interleavedHeads, addend } = this.#find(tensor);
    const what = `${this.path}: tensor ${tensor}`;
    const rows = shape.length < 2 ? 1 : shape[0]!;
    if (first < 0 || count < 0 || first + count > rows)
      throw new PotluckError('INTERNAL', `${what}: rows ${first} to ${first + count} are outside.`);
    const extra = addend === 0 ? {} : { addend };
    if (interleavedHeads === null) {
      const read = await readTensorRows(this.#file, what, stored, firstRow + first, count);
      return new StoredRows({ what, ...read, rows: count, ...extra });
    }
    if ((shape[0] ?? 0) % (2 * interleavedHeads) !== 0)
      throw invalidCheckpoint(what, `its ${shape[0]} rows are not ${interleavedHeads} even heads`);
    if (shape.length < 2) return this.#readInterleavedVector(what, stored, interleavedHeads);
    const { from, order, ...span } = interleavedRows(rows, interleavedHeads, first, count);
    const read = await readTensorRows(this.#file, what, stored, firstRow + from, span.count);
    return new StoredRows({ what, ...read, rows: count, order, ...extra });
  }

  async readFile(name: string): Promise<Uint8Array | undefined> {
    if (name === 'chat_template.jinja') {
      const template = this.#tokenizer()?.chatTemplate;
      return template == null ? undefined : new TextEncoder().encode(template);
    }
    const json = await this.readJson(name);
    return json === undefined ? undefined : new TextEncoder().encode(JSON.stringify(json));
  }

  async readJson(name: string): Promise<unknown> {
    if (name === 'tokenizer.json') return this.#tokenizer()?.tokenizerJson;
    if (name === 'tokenizer_config.json') return this.#tokenizer()?.tokenizerConfig;
    return undefined;
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  #tokenizer(): TokenizerFiles | null {
    if (this.#files === undefined) this.#files = tokenizerFiles(this.#fields);
    return this.#files;
  }

  #find(tensor: string): NamedTensor {
    const found = this.#tensors.get(tensor);
    if (!found) throw invalidCheckpoint(this.path, `has no tensor for ${tensor}, which the model needs`);
    return found;
  }

  /** A bias of queries or keys: its elements lie as the rows of the matrix do. */
  async #readInterleavedVector(what: string, stored: GgufTensor, heads: number): Promise<StoredRows> {
    const columns = stored.shape[0]!;
    const read = await readTensorRows(this.#file, what, stored, 0, 1);
    const values = new Float32Array(columns);
    new StoredRows({ what, ...read, rows: 1 }).copy(0, 0, columns, values);
    const { order } = interleavedRows(columns, heads, 0, columns);
    const bytes = new Uint8Array(Float32Array.from(order, at => values[at]!).buffer);
    return new StoredRows({ what, format: F32, bytes, rows: 1, columns });
  }
}

/** Stored rows `first` to `first + count` of a tensor, of all its experts. */
async function readTensorRows(
  file: OpenFile,
  what: string,
  { type, shape, offset }: GgufTensor,
  first: number,
  count: number,
): Promise<Pick<ConstructorParameters<typeof StoredRows>[0], 'format' | 'bytes' | 'columns'>> {
  const { format, name, blockElements, blockBytes } = type;
  if (format === null)
    throw new PotluckError(
      'UNSUPPORTED_MODEL',
      `${what}: has the type ${name}. Supported: ${READABLE_TYPES.join(', ')}; use another file of the same model.`,
    );
  const columns = shape.at(-1) ?? 1;
  const rowBytes = (columns / blockElements) * blockBytes;
  const bytes = new Uint8Array(count * rowBytes);
  await readFully(file, what, bytes, offset + first * rowBytes);
  return { format, bytes, columns };
}

async function readRopeFactors(
  file: OpenFile,
  path: string,
  tensors: ReadonlyMap<string, GgufTensor>,
): Promise<RopeFactors> {
  const read = async (name: string): Promise<number[] | undefined> => {
    const tensor = tensors.get(`${name}.weight`);
    if (!tensor) return undefined;
    const count = tensor.shape[0] ?? 0;
    if (tensor.shape.length !== 1 || count < 1 || count > MOST_FACTORS)
      throw invalidCheckpoint(path, `tensor ${name}.weight has the shape ${JSON.stringify(tensor.shape)}`);
    const what = `${path}: tensor ${name}.weight`;
    const values = new Float32Array(count);
    const rows = await readTensorRows(file, what, tensor, 0, 1);
    new StoredRows({ what, ...rows, rows: 1 }).copy(0, 0, count, values);
    return [...values];
  };
  const [all, short, long] = [
    await read('rope_freqs'),
    await read('rope_factors_short'),
    await read('rope_factors_long'),
  ];
  return { ...(all && { all }), ...(short && { short }), ...(long && { long }) };
}
