import * as fileSystem from 'node:fs/promises';
import { crc32c } from '../../disk-io/crc32c.ts';
import { PotluckError } from '../../errors/errors.ts';
import type { Backend, BackendModel, PlacedTile } from '../../kernels/backend.ts';
import { LayerTiles, layerMemory, runHalf } from '../../model/calibrate.ts';
import { Embedding } from '../../model/embedding.ts';
import { type ActivationLevels, allBlocks, shareInA4 } from '../../model/quantizer/level-blocks.ts';
import { vectorOf } from '../../model/quantizer/round-tile.ts';
import {
  readLevels,
  setConstantLevels,
  setTileLevels,
  TileBlocks,
} from '../../model/quantizer/write-levels.ts';
import { type OpenFile, readFully } from '../../pack/file-system.ts';
import type { Manifest, ModelShape, TileEntry } from '../../pack/manifest.ts';
import { openPackFolder, type PackFolder } from '../../pack/pack-folder.ts';
import {
  PAGE_POSITIONS,
  paddedVocabulary,
  tileBytes,
  tileCount,
  vectorPlaces,
} from '../../pack/tile-shape.ts';

/** Logits of this many tokens are computed at a time. */
const LOGIT_ROWS = 64;

export interface LayerwiseOptions {
  /** Levels of activations; null: those of the pack. */
  readonly activations: ActivationLevels | null;
  /** Bits of keys and values; null: those of the pack. */
  readonly kvBits: ModelShape['kvBits'] | null;
}

/**
 * A pack that many windows of text go through together, layer by layer: in memory are the tiles of one layer, or of the head,
 * and the residuals of all windows. Numbers as the pack has them, or with other levels.
 */
export class LayerwisePack {
  /** The part of all multiply-adds with activations in 4 bits. */
  readonly shareInA4: number;
  readonly shape: ModelShape;
  readonly #pack: PackFolder;
  readonly #file: OpenFile;
  readonly #blocks: TileBlocks;
  readonly #inA4: readonly boolean[];

  private constructor(pack: PackFolder, file: OpenFile, shape: ModelShape, inA4: readonly boolean[]) {
    this.#pack = pack;
    this.#file = file;
    this.shape = shape;
    this.#inA4 = inA4;
    this.#blocks = new TileBlocks(shape.weights === 'w4' ? allBlocks(shape) : []);
    this.shareInA4 = shape.weights === 'w4' ? shareInA4(this.#blocks.blocks, inA4) : 0;
  }

  /** Rejects with what openPackFolder rejects with, and with BAD_OPTION where the pack has no mixed levels. */
  static async open(folder: string, options: LayerwiseOptions): Promise<LayerwisePack> {
    const pack = await openPackFolder(fileSystem, folder);
    const file = await fileSystem.open(pack.tilesPath, 'r');
    try {
      const { shape } = pack.manifest;
      const inA4 = shape.weights === 'w4' ? await packLevels(pack, file, options.activations) : [];
      const kvBits = shape.weights === 'w4' ? (options.kvBits ?? shape.kvBits) : shape.kvBits;
      return new LayerwisePack(pack, file, { ...shape, kvBits }, inA4);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  /** Residuals behind the last layer of each window, [tokens, width]; windows have one length. */
  async residuals(
    backend: Backend,
    windows: readonly (readonly number[])[],
    onLayer: (done: number) => void,
  ): Promise<Float32Array[]> {
    const { shape } = this;
    const tokens = windows[0]!.length;
    const embedding = new Embedding({
      manifest: this.#pack.manifest,
      readAt: (offset, target) => readFully(this.#file, this.#pack.tilesPath, target, offset),
      checks: await this.#pack.embeddingChecks(),
      crc32c,
      cacheBytes: 0,
    });
    const rows = windows.map(() => new Float32Array(tokens * shape.width));
    for (const [i, window] of windows.entries()) await embedding.embed(window, rows[i]!);
    await this.#withModel(backend, layerMemory(shape), tokens, async (model, weights) => {
      const readTile = (tile: number, target: Uint8Array) => this.#readTile(this.#entries[tile]!, target);
      const reader = new LayerTiles({ shape, readTile }, weights);
      setTokens(model, tokens, []);
      for (let layer = 0; layer < shape.layers; layer++) {
        await reader.place(layer);
        for (const residual of rows) {
          model.pass.residual.set(residual);
          for (const half of ['attention', 'ffn'] as const) await runHalf(shape, model, reader, layer, half);
          residual.set(model.pass.residual.subarray(0, residual.length));
        }
        onLayer(layer + 1);
      }
    });
    return rows;
  }

  /** Calls `use` with the logits of every token of every window in turn; [vocabulary], valid during the call. */
  async eachLogits(
    backend: Backend,
    residuals: readonly Float32Array[],
    use: (window: number, token: number, logits: Float32Array) => void,
  ): Promise<void> {
    const { shape } = this;
    const tokens = residuals[0]!.length / shape.width;
    const tiles = this.#entries.filter(({ kind }) => kind === 'head');
    const bytes = tileBytes(shape, 'head');
    await this.#withModel(backend, tiles.length * bytes, tokens, async (model, weights) => {
      const placed: PlacedTile[] = [];
      for (const [i, tile] of tiles.entries()) {
        await this.#readTile(tile, new Uint8Array(weights, i * bytes, bytes));
        placed.push({ offset: i * bytes, slot: i * shape.tiling.headRows });
      }
      const row = paddedVocabulary(shape);
      for (const [window, residual] of residuals.entries())
        for (let first = 0; first < tokens; first += LOGIT_ROWS) {
          const count = Math.min(LOGIT_ROWS, tokens - first);
          setTokens(
            model,
            tokens,
            Array.from({ length: count }, (_, i) => first + i),
          );
          model.pass.residual.set(residual);
          await model.run([{ op: 'head-begin' }, { op: 'head-tiles', tiles: placed }]);
          for (let i = 0; i < count; i++)
            use(window, first + i, model.pass.logits.subarray(i * row, i * row + shape.vocabulary));
        }
    });
  }

  get #entries(): readonly TileEntry[] {
    return this.#pack.manifest.tiles;
  }

  async #withModel(
    backend: Backend,
    bytes: number,
    tokens: number,
    work: (model: BackendModel, weights: ArrayBuffer) => Promise<void>,
  ): Promise<void> {
    const { shape } = this;
    const constants = this.#pack.constants.slice(0);
    setConstantLevels(shape, constants, this.#blocks.blocks, this.#inA4);
    const weights = backend.allocate(bytes);
    try {
      const model = backend.openModel({
        shape,
        constants,
        weights,
        attentionTiles: tileCount(shape, 'attention'),
        kvPages: Math.ceil(tokens / PAGE_POSITIONS),
        maxTokens: tokens,
        maxLogitRows: LOGIT_ROWS,
      });
      try {
        await work(model, weights);
      } finally {
        model.close();
      }
    } finally {
      backend.release(weights);
    }
  }

  /** Reads a tile with the levels and the vectors of this shape. */
  async #readTile(entry: TileEntry, target: Uint8Array): Promise<void> {
    const stored = new Uint8Array(entry.bytes);
    await readFully(this.#file, this.#pack.tilesPath, stored, entry.offset);
    setTileLevels(this.#pack.manifest.shape, stored, entry, this.#blocks, this.#inA4);
    moveVectors(this.#pack.manifest.shape, this.shape, entry.kind, stored, target);
  }
}

/** The levels asked for, or those of the pack. */
async function packLevels(
  pack: PackFolder,
  file: OpenFile,
  wanted: ActivationLevels | null,
): Promise<boolean[]> {
  const { shape, tiles } = pack.manifest;
  if (wanted === 'a8' || wanted === 'a4') return allBlocks(shape).map(() => wanted === 'a4');
  const inA4 = await readLevels(shape, pack.constants, async tile => {
    const entry = tiles.find(
      each => each.kind === tile.kind && each.layer === tile.layer && each.index === tile.index,
    )!;
    const bytes = new Uint8Array(entry.bytes);
    await readFully(file, pack.tilesPath, bytes, entry.offset);
    return bytes;
  });
  if (wanted === 'mixed' && new Set(inA4).size < 2)
    throw new PotluckError(
      'BAD_OPTION',
      `${pack.folder}: all its activations have one level. Make a pack with: potluck pack --activations mixed`,
    );
  return inA4;
}

/** A tile of one shape as a tile of another that differs in the bits of keys and values: its vectors lie elsewhere. */
function moveVectors(
  from: ModelShape,
  to: ModelShape,
  kind: Manifest['tiles'][number]['kind'],
  stored: Uint8Array,
  target: Uint8Array,
): void {
  target.fill(0);
  const { places } = vectorPlaces(from, kind);
  target.set(stored.subarray(0, Math.min(target.length, places[0]!.offset)));
  for (const { name } of places) {
    const values = vectorOf(to, kind, name, target);
    if (values.length > 0) values.set(vectorOf(from, kind, name, stored));
  }
}

/** One sequence of `tokens` tokens from position 0. */
function setTokens(model: BackendModel, tokens: number, logitRows: readonly number[]): void {
  model.setBatch({
    positions: Int32Array.from({ length: tokens }, (_, i) => i),
    sequences: new Int32Array(tokens),
    lengths: new Int32Array(tokens).fill(tokens),
    pageTables: [Int32Array.from({ length: Math.ceil(tokens / PAGE_POSITIONS) }, (_, page) => page)],
    logitRows: Int32Array.from(logitRows),
  });
}
