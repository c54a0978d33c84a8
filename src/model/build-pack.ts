import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { PotluckError } from '../errors/errors.ts';
import type { Rounding } from '../kernels/addon.ts';
import type { Backend } from '../kernels/backend.ts';
import { type FileSystem, writing } from '../pack/file-system.ts';
import type { Manifest, ModelShape, Tiling, WeightFormat } from '../pack/manifest.ts';
import { bf16ToFloat, floatToBf16 } from '../pack/number-formats.ts';
import { PackJournal, type PackStep } from '../pack/pack-journal.ts';
import { type Crc32c, PackWriter, type PackWriterOptions, unfinishedFolder } from '../pack/pack-writer.ts';
import { checkShape, PACK_FILE_BYTES, PACK_NAME, totalTiles } from '../pack/read-manifest.ts';
import { embeddingRowBytes, tileCount } from '../pack/tile-shape.ts';
import { defaultNumbers } from './activation-levels.ts';
import type { Architecture, ModelConfig } from './architecture.ts';
import { findArchitecture } from './architectures.ts';
import { CALIBRATION_TOKENS, calibrate } from './calibrate.ts';
import { type Checkpoint, openCheckpoint } from './checkpoint.ts';
import { specialTokens } from './checkpoint-tokens.ts';
import { cutLayer } from './cut-layer.ts';
import { cutHeadTile, type ReadRows } from './cut-tiles.ts';
import { chooseTiling } from './cut-tiling.ts';
import { Embedding } from './embedding.ts';
import { readConstants } from './layer-constants.ts';
import { LayerReader } from './layer-tensors.ts';
import { type PackFile, tokenizerPackFiles } from './pack-tokenizer.ts';
import { withoutPrefix } from './prefixed-checkpoint.ts';
import { writeBf16Row, writeInt8Row } from './quantize-embedding.ts';
import { sourceShape } from './quantizer/half-layer.ts';
import type { ActivationLevels } from './quantizer/level-blocks.ts';
import { quantizePack, RESIDUAL_FILES } from './quantizer/quantize-pack.ts';
import { checkQuantizerMemory } from './quantizer/quantizer-memory.ts';
import { writeLevels } from './quantizer/write-levels.ts';
import { withOwnHead } from './tied-head.ts';
import { refuseUnused } from './unused-tensors.ts';

const JOURNAL_FILE = 'journal.jsonl';
/** Rises when the same options give other bytes than before (a test holds their digest): runs from before do not go on. */
export const ROUNDING_VERSION = 2;
/** Bytes of embedding rows that are read at a time, about. */
const EMBEDDING_CHUNK = 8 * 2 ** 20;

export type BuildProgress =
  /** Tiles (cut) or layers (calibrate) done, of `total`. */
  { readonly stage: 'cut' | 'calibrate'; readonly done: number; readonly total: number } | RoundingProgress;

/** Tiles are cut and rounded by inputs, layer by layer. */
export interface RoundingProgress {
  readonly stage: 'round';
  /** Multiply-adds of `total`; those of an interrupted run that goes on count as done. */
  readonly done: number;
  readonly total: number;
  /** The layer at work, of `layers`; `layers` where it is the head. */
  readonly layer: number;
  readonly layers: number;
  /** Tiles that are written. */
  readonly tiles: number;
}

export type RopePrecision = 'float32' | 'bfloat16';

export interface BuildPackOptions {
  /** Folder of a checkpoint in the Hugging Face layout, or a GGUF file. */
  readonly checkpoint: string;
  /** Folder of the pack; must not exist yet. */
  readonly target: string;
  readonly name: string;
  readonly weights: WeightFormat;
  /** Bits of stored keys and values; 4 with w4, 32 with bf16 unless given. */
  readonly kvBits?: ModelShape['kvBits'];
  /** Where it is not given, chosen from the shape. */
  readonly tiling?: Partial<Tiling>;
  /**
   * How RoPE frequencies are kept; float32 unless given. Casting a whole model to bfloat16 in transformers rounds them
   * too: a reference that was computed so only agrees with 'bfloat16'.
   */
  readonly ropePrecision?: RopePrecision;
  readonly fileSystem: FileSystem;
  readonly crc32c: Crc32c;
  /** Runs the calibration. */
  readonly backend: Backend;
  /**
   * Rounds w4 weights by what the calibration tokens make of them (GPTQ); the backend is exact then. Without it, or without
   * tokens, each weight is rounded to the nearest. A pack made so can be interrupted: built again with the same options it
   * goes on behind the last layer that was done.
   */
  readonly rounding?: Rounding;
  /** Levels of the activations of a pack that is rounded so; a8 unless given. */
  readonly activations?: ActivationLevels;
  /** Most bytes of the process where weights are rounded by inputs; not checked unless given. */
  readonly memoryBytes?: number;
  /** Tokens of a text for the calibration; else a few are drawn from a fixed seed. */
  readonly calibrationTokens?: readonly number[];
  /** For people: where the weights come from. Goes into the manifest. */
  readonly origin?: Readonly<Record<string, string | number>>;
  readonly onProgress?: (progress: BuildProgress) => void;
}

/** What all steps of a build need. */
interface Build {
  readonly options: BuildPackOptions;
  readonly checkpoint: Checkpoint;
  readonly architecture: Architecture;
  readonly config: ModelConfig;
  readonly shape: ModelShape;
  readonly tokenizer: readonly PackFile[];
  readonly writer: PackWriter;
}

/**
 * Makes a pack of a checkpoint, tile by tile: in memory are one tile, a stripe of a matrix, and for the calibration the
 * tiles of one layer; where weights are rounded by inputs, see quantizerBytes. Rejects with PACK_NOT_FOUND, CHECKPOINT_INVALID, UNSUPPORTED_MODEL, BAD_OPTION,
 * DISK_READ, DISK_WRITE, MEMORY_TOO_SMALL or KERNEL_FAILED; then nothing is left at the target.
 */
export async function buildPack(options: BuildPackOptions): Promise<Manifest> {
  if (!PACK_NAME.test(options.name))
    throw new PotluckError(
      'BAD_OPTION',
      `The name ${JSON.stringify(options.name)} is not 1 to 100 letters, digits, dots, dashes or underscores.`,
    );
  const opened = await openCheckpoint(options.fileSystem, options.checkpoint);
  try {
    const { configPath } = opened;
    const architecture = findArchitecture(opened.config, configPath);
    const checkpoint = withoutPrefix(opened, architecture);
    const read = architecture.readConfig(checkpoint.config, configPath);
    const config = await withOwnHead(
      checkpoint,
      architecture,
      withPrecision(read, options.ropePrecision ?? 'float32'),
    );
    const shape: ModelShape = {
      ...config.shape,
      ...defaultNumbers(options.weights),
      ...(options.kvBits === undefined ? {} : { kvBits: options.kvBits }),
      tiling: chooseTiling(config.shape, options.tiling),
    };
    checkShape(shape, configPath);
    checkTensors(checkpoint, architecture, config);
    await refuseUnused(checkpoint, architecture, config);
    if (roundsByInputs(options)) checkQuantizerMemory(shape, options.memoryBytes ?? Infinity);
    const tokenizer = await tokenizerPackFiles(checkpoint);
    const build = { options, checkpoint, architecture, config, shape, tokenizer };
    if (roundsByInputs(options)) return await quantizedPack(build);
    const writer = await PackWriter.create(writerOptions(build));
    try {
      return await plainPack({ ...build, writer });
    } catch (error) {
      await writer.abort();
      throw error;
    }
  } finally {
    await opened.close();
  }
}

/** A config with RoPE frequencies, and what else transformers has in buffers, as they are kept. */
function withPrecision(config: ModelConfig, precision: RopePrecision): ModelConfig {
  if (precision === 'float32') return config;
  const round = (value: number) => bf16ToFloat(floatToBf16(value));
  const rotations = config.shape.rotations.map(rotation => ({
    ...rotation,
    frequencies: rotation.frequencies.map(round),
  }));
  const { embeddingScale: scale } = config.shape;
  const embeddingScale = config.bufferedScale ? round(scale) : scale;
  return { ...config, shape: { ...config.shape, rotations, embeddingScale } };
}

/** Compares the shape of every tensor before anything is written. */
function checkTensors(
  checkpoint: Checkpoint,
  architecture: Architecture,
  { shape: s, tiedHead }: ModelConfig,
): void {
  const { names } = architecture;
  checkpoint.expect(names.embedding, [s.vocabulary, s.width]);
  if (!tiedHead) checkpoint.expect(names.head, [s.vocabulary, s.width]);
  checkpoint.expect(names.finalNorm, [s.width]);
  for (let layer = 0; layer < s.layers; layer++)
    new LayerReader(checkpoint, architecture, s, layer).check(s.experts?.count ?? 0);
}

const roundsByInputs = (options: BuildPackOptions): boolean =>
  options.weights === 'w4' && options.rounding !== undefined && (options.calibrationTokens?.length ?? 0) > 0;

const writerOptions = ({ options, shape }: Omit<Build, 'writer'>): PackWriterOptions => ({
  fileSystem: options.fileSystem,
  target: options.target,
  crc32c: options.crc32c,
  shape,
  embeddingFormat: options.weights === 'w4' ? 'int8' : 'bf16',
});

/** A pack whose weights are as they are in the checkpoint, or each rounded to the nearest. */
async function plainPack(build: Build): Promise<Manifest> {
  const { options, checkpoint, config, shape, writer } = build;
  const special = await readSpecialTokens(build);
  const constants = await readConstants(checkpoint, build.architecture, config, shape);
  await writeEmbedding(build);
  await writeTiles(build);
  const tokens = calibrationTokens(options.calibrationTokens, special.beginToken, shape);
  await calibratePack(build, constants, tokens);
  await writer.setConstants(constants);
  const facts = { calibrationTokens: tokens.length, rounding: 'nearest' };
  const manifest = await completePack(build, special, facts);
  await writer.place();
  return manifest;
}

/** A pack whose weights are rounded by what they see. */
async function quantizedPack(start: Omit<Build, 'writer'>): Promise<Manifest> {
  const { options, checkpoint, architecture, config, shape } = start;
  const special = await readSpecialTokens(start);
  const constants = await readConstants(checkpoint, architecture, config, shape);
  const run = await runOf(start, constants);
  const begun = await openRun(writerOptions(start), run, constants);
  const { writer, journal, damage } = begun;
  const build = { ...start, writer };
  let manifest: Manifest;
  try {
    await roundTiles(build, begun, constants, special.beginToken);
    // From here on every step may be done again, and needs what the journal has and no residuals.
    const share = await writeLevels(shape, constants, writer, damage, options.activations ?? 'a8');
    await writer.setConstants(constants);
    manifest = await completePack(build, special, {
      calibrationTokens: options.calibrationTokens!.length,
      rounding: 'inputs',
      activations: options.activations ?? 'a8',
      multiplyAddsInA4: Number(share.toFixed(4)),
    });
  } catch (error) {
    await writer.leave();
    throw error;
  } finally {
    await journal.close();
  }
  const { fileSystem, target } = options;
  for (const name of RESIDUAL_FILES) await removeFile(fileSystem, join(unfinishedFolder(target), name));
  await writer.place();
  // Behind all else: what is interrupted without it begins anew.
  await removeFile(fileSystem, join(target, JOURNAL_FILE));
  return manifest;
}

/** Writes embedding and tiles, as far as the run has not; each step goes into the journal, and its damage to the others. */
async function roundTiles(
  build: Build,
  { journal, layersDone, damage }: Run,
  constants: ArrayBuffer,
  beginToken: number | null,
): Promise<void> {
  const { options, shape, writer, config } = build;
  if (layersDone > shape.layers) return;
  let at = { layer: Math.max(0, layersDone), done: 0, total: 1 };
  const say = () =>
    options.onProgress?.({ stage: 'round', ...at, layers: shape.layers, tiles: writer.tiles.length });
  const keep = async (layer: number, itsDamage: readonly number[]) => {
    damage.push(...itsDamage);
    await writer.setConstants(constants);
    await writer.sync();
    const tiles = writer.tiles.filter(tile => (tile.kind === 'head' ? shape.layers : tile.layer) === layer);
    await journal.append({ layer, crc32c: 0, tiles, damage: itsDamage });
  };
  if (layersDone < 0) {
    await writeEmbedding(build);
    await writer.sync();
    await journal.append({ layer: -1, crc32c: writer.embeddingCrc, tiles: [], damage: [] });
  }
  const ofHead = await quantizePack({
    shape,
    constants,
    rounding: options.rounding!,
    backend: options.backend,
    fileSystem: options.fileSystem,
    folder: unfinishedFolder(options.target),
    tokens: options.calibrationTokens!,
    beginToken,
    layersDone: Math.max(0, layersDone),
    embed: (ids, target) => writtenEmbedding(build).embed(ids, target),
    layerTiles: layer => cutLayer(sourceShape(shape), layer, layerReader(build, layer), config.normOffset),
    headTiles: () => cutHead(build, sourceShape(shape)),
    addTile: async tile => {
      await writer.addTile(tile);
      say();
    },
    onWork: (layer, done, total) => {
      at = { layer, done, total };
      say();
    },
    onLayer: keep,
  });
  await keep(shape.layers, ofHead);
}

const removeFile = (fileSystem: FileSystem, path: string): Promise<void> =>
  writing(path, () => fileSystem.rm(path, { recursive: false, force: true }));

interface Run {
  readonly writer: PackWriter;
  readonly journal: PackJournal;
  /** -1 where even the embedding is not written; one more than there are where the head is done as well. */
  readonly layersDone: number;
  /** Of the layers that are done, and the head; see allBlocks. */
  readonly damage: number[];
}

/** Goes on with an interrupted run, or begins one. */
async function openRun(options: PackWriterOptions, run: string, constants: ArrayBuffer): Promise<Run> {
  const { fileSystem, target } = options;
  const path = join(unfinishedFolder(target), JOURNAL_FILE);
  const found = await PackJournal.resume(fileSystem, path, run);
  try {
    const writer = found && found.steps.length > 0 && (await PackWriter.resume(options, found.steps));
    if (writer) return await goOn(writer, found, constants);
  } catch (error) {
    await found?.journal.close();
    throw error;
  }
  await found?.journal.close();
  // First: what is removed halfway must not be gone on with.
  await removeFile(fileSystem, path);
  const writer = await PackWriter.create(options);
  try {
    return { writer, journal: await PackJournal.create(fileSystem, path, run), layersDone: -1, damage: [] };
  } catch (error) {
    await writer.leave();
    throw error;
  }
}

async function goOn(
  writer: PackWriter,
  { journal, steps }: { journal: PackJournal; steps: readonly PackStep[] },
  constants: ArrayBuffer,
): Promise<Run> {
  const layersDone = steps.length - 1;
  try {
    if (layersDone > 0) await writer.readConstants(constants);
  } catch (error) {
    await writer.leave();
    throw error;
  }
  return { writer, journal, layersDone, damage: steps.flatMap(step => step.damage) };
}

/**
 * What must be the same for a run to go on. Of the weights the norms and the first embedding row stand for all. Levels count, as the
 * end of a run may have written some into tiles.
 */
async function runOf(
  { options, checkpoint, architecture, shape }: Omit<Build, 'writer'>,
  constants: ArrayBuffer,
): Promise<string> {
  const row = new Float32Array(shape.width);
  (await checkpoint.readRows(architecture.names.embedding, 0, 1)).copy(0, 0, shape.width, row);
  return createHash('sha256')
    .update(
      JSON.stringify([
        ROUNDING_VERSION,
        shape,
        options.calibrationTokens,
        options.activations ?? 'a8',
        checkpoint.path,
      ]),
    )
    .update(new Uint8Array(constants))
    .update(new Uint8Array(row.buffer))
    .digest('hex');
}

async function readSpecialTokens({ checkpoint, config, shape }: Omit<Build, 'writer'>) {
  const files = {
    tokenizer: await checkpoint.readJson('tokenizer.json', PACK_FILE_BYTES),
    tokenizerConfig: await checkpoint.readJson('tokenizer_config.json', PACK_FILE_BYTES),
    generationConfig: await checkpoint.readJson('generation_config.json', PACK_FILE_BYTES),
  };
  return specialTokens(files, config, shape.vocabulary);
}

/** Writes the last files and the manifest. */
async function completePack(
  { options, tokenizer, architecture, writer }: Build,
  special: ReturnType<typeof specialTokens>,
  facts: Readonly<Record<string, string | number>>,
): Promise<Manifest> {
  for (const { name, bytes } of tokenizer) await writer.addFile(name, bytes);
  const origin = {
    architecture: architecture.className,
    ...facts,
    ...options.origin,
  };
  return writer.complete({ name: options.name, ...special, origin });
}

async function writeEmbedding({ options, checkpoint, architecture, shape, writer }: Build): Promise<void> {
  const rowBytes = embeddingRowBytes(shape, options.weights === 'w4' ? 'int8' : 'bf16');
  const writeRow = options.weights === 'w4' ? writeInt8Row : writeBf16Row;
  const atOnce = Math.max(1, Math.floor(EMBEDDING_CHUNK / (shape.width * 4)));
  const values = new Float32Array(shape.width);
  for (let first = 0; first < shape.vocabulary; first += atOnce) {
    const rows = Math.min(atOnce, shape.vocabulary - first);
    const stored = await checkpoint.readRows(architecture.names.embedding, first, rows);
    const bytes = new Uint8Array(rows * rowBytes);
    for (let row = 0; row < rows; row++) {
      stored.copy(row, 0, shape.width, values);
      writeRow(values, bytes.subarray(row * rowBytes, (row + 1) * rowBytes));
    }
    await writer.addEmbeddingRows(bytes);
  }
}

const layerReader = ({ checkpoint, architecture, shape }: Build, layer: number): LayerReader =>
  new LayerReader(checkpoint, architecture, shape, layer);

/** Writes tiles, and says how many of all there are. */
function tileAdder({ options, shape, writer }: Build): (tile: Uint8Array) => Promise<void> {
  const total = totalTiles(shape);
  return async tile => {
    await writer.addTile(tile);
    options.onProgress?.({ stage: 'cut', done: writer.tiles.length, total });
  };
}

async function writeTiles(build: Build): Promise<void> {
  const { config, shape } = build;
  const add = tileAdder(build);
  for (let layer = 0; layer < shape.layers; layer++)
    for await (const tile of cutLayer(shape, layer, layerReader(build, layer), config.normOffset))
      await add(tile);
  for await (const tile of cutHead(build, shape)) await add(tile);
}

async function* cutHead(
  { checkpoint, architecture, config }: Build,
  shape: ModelShape,
): AsyncGenerator<Uint8Array> {
  const head = config.tiedHead ? architecture.names.embedding : architecture.names.head;
  const headRows: ReadRows = (first, count) => checkpoint.readRows(head, first, count);
  for (let i = 0; i < tileCount(shape, 'head'); i++) yield await cutHeadTile(shape, headRows, i);
}

/** The embedding as it was written. */
function writtenEmbedding({ options, shape, writer }: Build): Embedding {
  const format = options.weights === 'w4' ? 'int8' : 'bf16';
  return new Embedding({
    manifest: { shape, embedding: { offset: 0, format, rowBytes: embeddingRowBytes(shape, format) } },
    readAt: (offset, target) => writer.readEmbedding(offset, target),
    checks: writer.embeddingChecks,
    crc32c: bytes => options.crc32c(bytes, 0),
    cacheBytes: 0,
  });
}

async function calibratePack(build: Build, constants: ArrayBuffer, tokens: number[]): Promise<void> {
  const { options, shape, writer } = build;
  const embedding = writtenEmbedding(build);
  await calibrate({
    shape,
    backend: options.backend,
    constants,
    tokens,
    embed: (ids, target) => embedding.embed(ids, target),
    readTile: (tile, target) => writer.readTile(tile, target),
    onLayer: layer => options.onProgress?.({ stage: 'calibrate', done: layer + 1, total: shape.layers }),
  });
}

/** The tokens of a text, after the begin token; where there is no text, ids drawn by a linear congruential generator. */
function calibrationTokens(
  text: readonly number[] | undefined,
  beginToken: number | null,
  shape: ModelShape,
): number[] {
  const most = Math.min(CALIBRATION_TOKENS, shape.context);
  const begin = beginToken === null || text?.[0] === beginToken ? [] : [beginToken];
  if (text && text.length > 0) return [...begin, ...text].slice(0, most);
  let state = 1;
  const drawn = Array.from({ length: most }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * shape.vocabulary);
  });
  return [...begin, ...drawn].slice(0, most);
}
