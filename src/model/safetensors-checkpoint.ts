import { join } from 'node:path';
import * as v from 'valibot';
import { PotluckError } from '../errors/errors.ts';
import { errorNumber, type FileSystem, readWholeFile } from '../pack/file-system.ts';
import { invalidCheckpoint } from './checkpoint-error.ts';
import { templateOfJson, tokenizerJsonOfModel } from './folder-tokenizer.ts';
import type { PackedCheckpoint } from './int4-checkpoint.ts';
import { parseJsonFile } from './json-file.ts';
import { Safetensors } from './safetensors.ts';
import { duplicateKey } from './safetensors-header.ts';
import type { StoredRows } from './stored-rows.ts';

const CONFIG_BYTES = 2 ** 20;
const INDEX_BYTES = 2 ** 26;
const MOST_SHARDS = 1000;

const indexSchema = v.object({
  weight_map: v.record(v.string(), v.pipe(v.string(), v.regex(/^[A-Za-z0-9_][A-Za-z0-9_.-]*\.safetensors$/))),
});

/** A folder in the layout of Hugging Face: config.json and one or more safetensors files. */
export class SafetensorsCheckpoint implements PackedCheckpoint {
  readonly path: string;
  readonly configPath: string;
  readonly config: unknown;
  readonly #fileSystem: FileSystem;
  readonly #fileOf: ReadonlyMap<string, Safetensors>;
  readonly #files: readonly Safetensors[];

  private constructor(
    folder: string,
    config: unknown,
    fileSystem: FileSystem,
    files: Safetensors[],
    fileOf: Map<string, Safetensors>,
  ) {
    this.path = folder;
    this.configPath = join(folder, 'config.json');
    this.config = config;
    this.#fileSystem = fileSystem;
    this.#files = files;
    this.#fileOf = fileOf;
  }

  /** Rejects with PACK_NOT_FOUND, CHECKPOINT_INVALID or DISK_READ. */
  static async open(fileSystem: FileSystem, folder: string): Promise<SafetensorsCheckpoint> {
    const config = await readJson(fileSystem, join(folder, 'config.json'), CONFIG_BYTES);
    if (config === undefined)
      throw new PotluckError(
        'PACK_NOT_FOUND',
        `${folder}: there is no checkpoint here (no config.json). Give the folder of a model in the Hugging Face layout.`,
      );
    const files: Safetensors[] = [];
    try {
      const fileOf = await openFiles(fileSystem, folder, files);
      return new SafetensorsCheckpoint(folder, config, fileSystem, files, fileOf);
    } catch (error) {
      await Promise.all(files.map(file => file.close()));
      throw error;
    }
  }

  has(tensor: string): boolean {
    return this.#fileOf.has(tensor);
  }

  *tensors(): Iterable<readonly [string, readonly number[]]> {
    for (const [name, file] of this.#fileOf) yield [name, file.tensors.get(name)!.shape];
  }

  expect(tensor: string, shape: readonly number[]): void {
    const file = this.#fileOf.get(tensor);
    if (!file) throw invalidCheckpoint(this.path, `has no tensor ${tensor}, which config.json asks for`);
    const actual = file.tensors.get(tensor)!.shape;
    if (actual.length !== shape.length || actual.some((n, i) => n !== shape[i]))
      throw invalidCheckpoint(
        file.path,
        `tensor ${tensor} has the shape ${JSON.stringify(actual)}, and config.json asks for ${JSON.stringify(shape)}`,
      );
  }

  async readRows(tensor: string, first: number, count: number): Promise<StoredRows> {
    const file = this.#fileOf.get(tensor);
    if (!file) throw invalidCheckpoint(this.path, `has no tensor ${tensor}`);
    return file.readRows(tensor, first, count);
  }

  stored(tensor: string): { readonly dtype: string; readonly shape: readonly number[] } | undefined {
    return this.#fileOf.get(tensor)?.tensors.get(tensor);
  }

  async readTensor(tensor: string, limit: number): Promise<Uint8Array<ArrayBuffer>> {
    const file = this.#fileOf.get(tensor);
    if (!file) throw invalidCheckpoint(this.path, `has no tensor ${tensor}`);
    return file.readTensor(tensor, limit);
  }

  async readFile(name: string, limit: number): Promise<Uint8Array | undefined> {
    const found = await this.#readPlain(name, limit);
    if (found !== undefined) return found;
    if (name === 'tokenizer.json') {
      const json = await tokenizerJsonOfModel(this.#readPlain, this.path);
      return json && new TextEncoder().encode(JSON.stringify(json));
    }
    if (name === 'chat_template.jinja') {
      const template = await templateOfJson(this.#readPlain, this.path);
      return template === undefined ? undefined : new TextEncoder().encode(template);
    }
    return undefined;
  }

  async readJson(name: string, limit: number): Promise<unknown> {
    const bytes = await this.readFile(name, limit);
    return bytes && parseJsonFile(bytes, join(this.path, name));
  }

  readonly #readPlain = (name: string, limit: number): Promise<Uint8Array | undefined> =>
    readWholeFile(this.#fileSystem, join(this.path, name), limit);

  async close(): Promise<void> {
    await Promise.all(this.#files.map(file => file.close()));
  }
}

async function readJson(fileSystem: FileSystem, path: string, limit: number): Promise<unknown> {
  const bytes = await readWholeFile(fileSystem, path, limit);
  return bytes && parseJsonFile(bytes, path);
}

/** Opens the single file or the shards, into `files` (the caller closes them), and says where each tensor lies. */
async function openFiles(
  fileSystem: FileSystem,
  folder: string,
  files: Safetensors[],
): Promise<Map<string, Safetensors>> {
  const indexPath = join(folder, 'model.safetensors.index.json');
  const index = await readIndex(fileSystem, indexPath);
  if (index) return openShards(fileSystem, folder, indexPath, index, files);
  const path = join(folder, 'model.safetensors');
  if (!(await exists(fileSystem, path)))
    throw new PotluckError(
      'CHECKPOINT_INVALID',
      `${folder}: has neither model.safetensors nor model.safetensors.index.json. Only safetensors checkpoints can be read.`,
    );
  const file = await Safetensors.open(fileSystem, path);
  files.push(file);
  return new Map([...file.tensors.keys()].map(tensor => [tensor, file]));
}

async function readIndex(fileSystem: FileSystem, path: string): Promise<Record<string, string> | undefined> {
  const bytes = await readWholeFile(fileSystem, path, INDEX_BYTES);
  if (bytes === undefined) return undefined;
  let parsed: unknown;
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    parsed = JSON.parse(text);
  } catch (error) {
    throw invalidCheckpoint(path, 'is not JSON', error);
  }
  const twice = duplicateKey(text);
  if (twice !== undefined) throw invalidCheckpoint(path, `has the key ${JSON.stringify(twice)} twice`);
  const result = v.safeParse(indexSchema, parsed, { abortEarly: true });
  if (!result.success) {
    const issue = result.issues[0];
    throw invalidCheckpoint(
      path,
      `${v.getDotPath(issue) ?? 'the top level'}: ${issue.message} (a shard is a safetensors file of the same folder)`,
    );
  }
  return result.output.weight_map;
}

async function openShards(
  fileSystem: FileSystem,
  folder: string,
  indexPath: string,
  index: Record<string, string>,
  files: Safetensors[],
): Promise<Map<string, Safetensors>> {
  const names = [...new Set(Object.values(index))];
  if (names.length > MOST_SHARDS)
    throw invalidCheckpoint(indexPath, `names ${names.length} shards, more than ${MOST_SHARDS}`);
  const byName = new Map<string, Safetensors>();
  for (const name of names) {
    const path = join(folder, name);
    if (!(await exists(fileSystem, path)))
      throw invalidCheckpoint(path, 'is missing, and the index names it');
    const file = await Safetensors.open(fileSystem, path);
    files.push(file);
    byName.set(name, file);
  }
  const fileOf = new Map<string, Safetensors>();
  for (const [tensor, name] of Object.entries(index)) {
    const file = byName.get(name)!;
    if (!file.tensors.has(tensor))
      throw invalidCheckpoint(file.path, `has no tensor ${tensor}, and the index says it has`);
    fileOf.set(tensor, file);
  }
  return fileOf;
}

async function exists(fileSystem: FileSystem, path: string): Promise<boolean> {
  try {
    return (await fileSystem.stat(path)).isFile();
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(errorNumber(error))) return false;
    throw error;
  }
}
