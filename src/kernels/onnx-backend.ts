import { PotluckError } from '../errors/errors.ts';
import {
  type Constant,
  constantOffset,
  constantsFloats,
  PAGE_POSITIONS,
  type Panel,
  paddedVocabulary,
  rotatedValues,
  roundUp,
  tileCount,
  tilePanels,
  tileQueryHeads,
} from '../pack/tile-shape.ts';
import type {
  Backend,
  BackendModel,
  Batch,
  Half,
  ModelMemory,
  PassBuffers,
  PlacedTile,
  RunStats,
  Step,
} from './backend.ts';
import { SCRIPT_LOGIT_MATH } from './logit-math.ts';
import { refuseFeatures } from './onnx-features.ts';
import { KvStore } from './onnx-kv-store.ts';
import {
  addFixedPoint,
  addPartial,
  fixedPointLimit,
  gatedRows,
  hadamardRows,
  normalizeRow,
  paddedWidth,
  type Rotations,
  rotateHead,
  rotationsOf,
} from './onnx-layer-math.ts';
import type { OrtModule } from './onnx-product.ts';
import { OnnxTileCache, type TileProducts } from './onnx-tile-cache.ts';

export interface OnnxBackendOptions {
  /** Threads of each matrix product. */
  readonly threads: number;
  /** Most memory for converted tiles of a model, beside the weights memory; 256 MiB where absent. */
  readonly cacheBytes?: number;
  /** Clock in milliseconds, for RunStats; where absent, runs report 0 microseconds. */
  readonly now?: () => number;
}

const DEFAULT_CACHE_BYTES = 256 << 20;

/**
 * The backend of onnxruntime, for devices without the native addon: close to docs/numerics.md, not bit-equal.
 * Matrix products run in onnxruntime, on the thread of the caller; the rest is computed here.
 */
export function createOnnxBackend(ort: OrtModule, options: OnnxBackendOptions): Backend {
  return {
    name: 'onnxruntime',
    exact: false,
    threads: options.threads,
    logitMath: SCRIPT_LOGIT_MATH,
    allocate: bytes => new ArrayBuffer(bytes),
    discard: (memory, offset, bytes) => new Uint8Array(memory, offset, bytes).fill(0),
    release: memory => {
      structuredClone(memory, { transfer: [memory] });
    },
    openModel: memory => new OnnxModel(ort, options, memory),
    close: () => undefined,
  };
}

class OnnxModel implements BackendModel {
  readonly pass: PassBuffers;
  readonly #memory: ModelMemory;
  readonly #now: () => number;
  readonly #tiles: OnnxTileCache;
  readonly #kv: KvStore;
  readonly #attentionPanels: readonly Panel[];
  #constants: Float32Array;
  #batch: Batch = {
    positions: new Int32Array(0),
    sequences: new Int32Array(0),
    pageTables: [],
    logitRows: new Int32Array(0),
    lengths: new Int32Array(0),
  };
  #rotations: Rotations = rotationsOf(new Int32Array(0), []);
  /** Normalized activations; [maxTokens, paddedWidth] float32, zero in the padding. */
  readonly #normed: Float32Array;
  #state: 'idle' | 'running' | 'closed' = 'idle';

  constructor(ort: OrtModule, options: OnnxBackendOptions, memory: ModelMemory) {
    const { shape, maxTokens, maxLogitRows } = memory;
    refuseFeatures(shape);
    this.#memory = memory;
    this.#now = options.now ?? (() => 0);
    const limit = options.cacheBytes ?? DEFAULT_CACHE_BYTES;
    this.#tiles = new OnnxTileCache(ort, options.threads, shape, memory.weights, limit);
    this.#kv = new KvStore(memory.kvPages, memory.attentionTiles, shape.headDim, shape.context);
    this.#attentionPanels = tilePanels(shape, 'attention');
    this.#constants = copyConstants(memory, memory.constants);
    this.#normed = new Float32Array(maxTokens * paddedWidth(shape));
    this.pass = {
      maxTokens,
      maxLogitRows,
      residual: new Float32Array(maxTokens * shape.width),
      partial: new Int32Array(maxTokens * shape.width),
      logits: new Float32Array(maxLogitRows * paddedVocabulary(shape)),
      routes: new Int32Array(0),
    };
  }

  get activationBytes(): number {
    return this.pass.residual.byteLength + this.pass.partial.byteLength;
  }

  setBatch(batch: Batch): void {
    if (this.#state !== 'idle') throw new RangeError(`model: is ${this.#state}`);
    checkBatch(batch, this.#memory);
    this.#batch = {
      positions: batch.positions.slice(),
      sequences: batch.sequences.slice(),
      pageTables: batch.pageTables.map(pages => pages.slice()),
      logitRows: batch.logitRows.slice(),
      lengths: batch.lengths.slice(),
    };
    this.#rotations = rotationsOf(batch.positions, this.#memory.shape.rotations[0]!.frequencies);
  }

  setConstants(constants: ArrayBuffer): void {
    if (this.#state !== 'idle') throw failed(`the model is ${this.#state}`);
    this.#constants = copyConstants(this.#memory, constants);
  }

  async run(steps: readonly Step[]): Promise<RunStats> {
    if (this.#state !== 'idle') throw failed(`the model is ${this.#state}`);
    this.#state = 'running';
    const began = this.#now();
    let saturated = 0;
    try {
      for (const step of steps) saturated += await this.#step(step);
    } catch (error) {
      throw failed(error instanceof Error ? error.message : String(error), { cause: error });
    } finally {
      this.#state = 'idle';
    }
    return { computeMicroseconds: (this.#now() - began) * 1000, saturated };
  }

  close(): void {
    if (this.#state === 'running') throw failed('the model runs a job');
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    void this.#tiles.close();
  }

  /** Runs one step; returns how many tile outputs were saturated. */
  async #step(step: Step): Promise<number> {
    const tokens = this.#batch.positions.length;
    const { partial, residual } = this.pass;
    switch (step.op) {
      case 'begin':
        partial.fill(0, 0, tokens * this.#memory.shape.width);
        for (let t = 0; t < tokens; t++) this.#normalize(t, t, `${step.half}Norm`, step.layer);
        return 0;
      case 'tiles': {
        let saturated = 0;
        for (const tile of step.tiles) saturated += await this.#tile(step.layer, step.half, tile);
        return saturated;
      }
      case 'end':
        addPartial(residual, partial, this.#constant(`${step.half}Scale`, step.layer), tokens);
        return 0;
      case 'head-begin':
        this.#batch.logitRows.forEach((token, row) => {
          this.#normalize(token, row, 'finalNorm', 0);
        });
        return 0;
      case 'head-tiles':
        for (const tile of step.tiles) await this.#headTile(tile);
        return 0;
      default:
        throw new RangeError(`the step ${step.op} is of features that were refused`);
    }
  }

  #constant(what: Constant, layer: number): Float32Array {
    const { shape } = this.#memory;
    const at = constantOffset(shape, what, layer);
    return this.#constants.subarray(at, at + shape.width);
  }

  /** The residual of `token` goes, normalized, to `row` of the activations. */
  #normalize(token: number, row: number, norm: Constant, layer: number): void {
    const { shape } = this.#memory;
    const to = row * paddedWidth(shape);
    const weight = this.#constant(norm, layer);
    normalizeRow(this.pass.residual, token * shape.width, weight, shape.normEpsilon, this.#normed, to);
    const normed = this.#normed.subarray(to, to + paddedWidth(shape));
    normed.fill(0, shape.width); // a rotation before wrote there
    if (shape.hadamard !== 0) hadamardRows(normed, 1, normed.length);
  }

  /** Adds the outputs of one tile to the partial sums. */
  #tile(layer: number, half: Half, tile: PlacedTile): Promise<number> {
    const { shape } = this.#memory;
    const tokens = this.#batch.positions.length;
    return this.#tiles.with(half, tile.offset, async ({ into, outOf }) => {
      const inner = await into.times(this.#normed, tokens);
      const mixed =
        half === 'attention'
          ? this.#attention(inner, into.rows, tile.slot)
          : gatedRows(inner, tokens, shape.tiling.ffnColumns);
      if (shape.hadamard !== 0 && !(half === 'attention' && rotatedValues(shape)))
        hadamardRows(mixed, tokens, mixed.length / tokens);
      const output = await outOf!.times(mixed, tokens);
      const limit = fixedPointLimit(tileCount(shape, half));
      return addFixedPoint(
        output,
        outOf!.rows,
        tokens,
        this.#constant(`${half}Scale`, layer),
        limit,
        this.pass.partial,
      );
    });
  }

  /**
   * Attention of one tile. projected: [tokens, stride] float32: queries, key and value of each token, each padded to whole
   * blocks; changed in place. Returns [tokens, query heads * headDim rounded up to 32].
   */
  #attention(projected: Float32Array, stride: number, slot: number): Float32Array {
    const { shape, attentionTiles } = this.#memory;
    if (slot < 0 || slot >= attentionTiles)
      throw new RangeError(`tile slot: ${slot} is not from 0 to ${attentionTiles - 1}`);
    const { positions, sequences, pageTables } = this.#batch;
    const { headDim, scoreScale } = shape;
    const heads = tileQueryHeads(shape);
    const [q, k] = this.#attentionPanels;
    const outStride = roundUp(heads * headDim, 32);
    const out = new Float32Array(positions.length * outStride);
    positions.forEach((position, t) => {
      const row = t * stride;
      const key = row + q!.paddedRows;
      const pages = pageTables[sequences[t]!]!;
      for (let h = 0; h < heads; h++)
        rotateHead(projected, row + h * headDim, headDim, this.#rotations, t, scoreScale);
      rotateHead(projected, key, headDim, this.#rotations, t, 1);
      this.#kv.put(pages, position, slot, projected, key, key + k!.paddedRows);
      for (let h = 0; h < heads; h++)
        this.#kv.attend(
          pages,
          position,
          slot,
          projected,
          row + h * headDim,
          out,
          t * outStride + h * headDim,
        );
    });
    return out;
  }

  async #headTile(tile: PlacedTile): Promise<void> {
    const { shape } = this.#memory;
    const { headRows } = shape.tiling;
    const rowLength = paddedVocabulary(shape);
    if (tile.slot < 0 || tile.slot % headRows !== 0 || tile.slot >= rowLength)
      throw new RangeError(`tile slot: ${tile.slot} is not the first row of a head tile`);
    const rows = this.#batch.logitRows.length;
    await this.#tiles.with('head', tile.offset, async ({ into }: TileProducts) => {
      const logits = await into.times(this.#normed, rows);
      for (let row = 0; row < rows; row++) {
        const from = row * into.rows;
        this.pass.logits.set(logits.subarray(from, from + headRows), row * rowLength + tile.slot);
      }
    });
  }
}

function copyConstants({ shape }: ModelMemory, constants: ArrayBuffer): Float32Array {
  const floats = constantsFloats(shape);
  if (constants.byteLength < floats * 4)
    throw failed(`constants of ${constants.byteLength} bytes are too short`);
  return new Float32Array(constants, 0, floats).slice();
}

function checkBatch(batch: Batch, memory: ModelMemory): void {
  const { positions, sequences, pageTables, logitRows } = batch;
  const require = (good: boolean, what: string): void => {
    if (!good) throw new RangeError(`batch: ${what}`);
  };
  require(positions.length <= memory.maxTokens, 'has too many tokens');
  require(sequences.length === positions.length, 'has not a sequence for each token');
  require(logitRows.length <= memory.maxLogitRows, 'asks for too many logit rows');
  for (const pages of pageTables)
    for (const page of pages) require(page >= 0 && page < memory.kvPages, `page ${page} is not reserved`);
  const last = new Int32Array(pageTables.length).fill(-1);
  positions.forEach((position, t) => {
    const sequence = sequences[t]!;
    const pages = pageTables[sequence];
    require(pages !== undefined, `sequence ${sequence} is not there`);
    require(position < memory.shape.context, `position ${position} is over the context`);
    require(position <
      pages!.length * PAGE_POSITIONS, `position ${position} is over the pages of its sequence`);
    require(position > last[sequence]!, 'the positions of a sequence do not rise');
    last[sequence] = position;
  });
  let before = -1;
  for (const row of logitRows) {
    require(row > before && row < positions.length, 'logit rows are not rising tokens of the batch');
    before = row;
  }
}

const failed = (what: string, options?: ErrorOptions): PotluckError =>
  new PotluckError('KERNEL_FAILED', `onnxruntime could not compute: ${what}.`, options);
