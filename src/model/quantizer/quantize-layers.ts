import { PotluckError } from '../../errors/errors.ts';
import type { Rounding } from '../../kernels/addon.ts';
import {
  type Backend,
  type BackendModel,
  type Half,
  MOST_EXPERT_TILES,
  type PlacedTile,
} from '../../kernels/backend.ts';
import type { ModelShape } from '../../pack/manifest.ts';
import {
  constantPlace,
  GROUP,
  layerTileCount,
  PAGE_POSITIONS,
  roundUp,
  tileCount,
} from '../../pack/tile-shape.ts';
import { beginHalf, fitScales, partStep, runHalf, summedTiles } from '../calibrate.ts';
import { writePaddingRows, writeRoundedRow } from '../cut-panel.ts';
import { DAMAGE_TOKENS, InputDamage, isSampled, PartsDamage } from './damage.ts';
import { type LayerTileKind, outputColumns, type TileBatch, tileBatches } from './half-layer.ts';
import { HalfMemory, type TileCopy } from './half-memory.ts';
import { keyMean } from './key-mean.ts';
import { normedInput } from './normed-input.ts';
import type { ResidualFile } from './residual-file.ts';
import {
  outputRow,
  type RoundedTile,
  roundHeadTile,
  roundInputs,
  someOutputRows,
  vectorOf,
} from './round-tile.ts';
import { Rounder } from './rounder.ts';
import { factorWork, inputPanelsWork, productsWork, rowsWork, runWork } from './rounding-work.ts';
import { TileCapture } from './tile-capture.ts';

/** Most tokens of a window: each is a text of its own, from position 0. */
export const WINDOW_TOKENS = 512;

export interface QuantizerOptions {
  /** Of the pack; w4. */
  readonly shape: ModelShape;
  /** Exact, or packs would differ from processor to processor. */
  readonly backend: Backend;
  readonly rounding: Rounding;
  /** Constants blob with the norms; the scales are written into it. */
  readonly constants: ArrayBuffer;
  /** Token ids; all of the same length, 1 to WINDOW_TOKENS, at most the context. */
  readonly windows: readonly (readonly number[])[];
  /** Source tiles of a layer, in execution order; see sourceShape. */
  readonly layerTiles: (layer: number) => AsyncGenerator<Uint8Array>;
  readonly headTiles: () => AsyncGenerator<Uint8Array>;
  /** Takes the tiles, in execution order. */
  readonly addTile: (tile: Uint8Array) => Promise<void>;
  /** Is told of work as it is done; see rounding-work.ts. */
  readonly onWork: (work: number) => void;
  /** Residuals before a layer, and where those behind it are put; they change roles. */
  readonly residuals: readonly [ResidualFile, ResidualFile];
}

/**
 * Rounds a model to 4 bits, layer by layer (GPTQ, arXiv 2210.17323): each panel by the products of the inputs that it sees
 * behind the rounded layers before it. In memory are the rounded tiles of one half layer, source tiles of one batch, and the
 * products of two inputs; residuals are on disk.
 */
export class LayerQuantizer {
  readonly #options: QuantizerOptions;
  readonly #shape: ModelShape;
  readonly #input: Rounder;
  readonly #output: Rounder;
  readonly #tiles: HalfMemory;
  readonly #model: BackendModel;
  readonly #tokens: number;
  readonly #captures = new Map<LayerTileKind, TileCapture>();
  readonly #samples: Samples;

  constructor(options: QuantizerOptions) {
    const { shape, backend, windows } = options;
    this.#options = options;
    this.#shape = shape;
    this.#tokens = windows[0]!.length;
    if (windows.some(window => window.length !== this.#tokens) || this.#tokens > WINDOW_TOKENS)
      throw new PotluckError('INTERNAL', 'Windows of different lengths.');
    this.#samples = new Samples(windows.length, this.#tokens);
    this.#input = new Rounder(options.rounding, backend, backend.threads);
    this.#output = new Rounder(options.rounding, backend, backend.threads);
    this.#tiles = new HalfMemory(shape, backend);
    const pages = Math.ceil(this.#tokens / PAGE_POSITIONS);
    this.#model = backend.openModel({
      shape,
      constants: options.constants,
      weights: this.#tiles.weights,
      attentionTiles: tileCount(shape, 'attention'), // of one layer: those before are not needed again
      kvPages: pages,
      maxTokens: this.#tokens,
      maxLogitRows: 1,
    });
    this.#model.setBatch({
      positions: Int32Array.from({ length: this.#tokens }, (_, i) => i),
      sequences: new Int32Array(this.#tokens),
      lengths: new Int32Array(this.#tokens).fill(this.#tokens),
      pageTables: [Int32Array.from({ length: pages }, (_, page) => page)],
      logitRows: new Int32Array(0),
    });
  }

  close(): void {
    this.#model.close();
    this.#tiles.close();
    this.#input.close();
    this.#output.close();
  }

  /** Writes the embedded windows to the residuals before layer 0. */
  async embed(embed: (ids: readonly number[], target: Float32Array) => Promise<void>): Promise<void> {
    const rows = new Float32Array(this.#tokens * this.#shape.width);
    for (const [i, window] of this.#options.windows.entries()) {
      await embed(window, rows);
      await this.#options.residuals[0].write(i * this.#tokens, rows);
    }
    await this.#options.residuals[0].sync();
  }

  /**
   * Rounds layer `layer` and gives its tiles away; the residuals behind it are then in the other file, synced. What 4-bit
   * activations damage, in the order of layerBlocks.
   */
  async layer(layer: number): Promise<number[]> {
    const [before, after] = this.#filesOf(layer);
    const source = this.#options.layerTiles(layer);
    const damage = await this.#half(layer, 'attention', source, before, after);
    damage.push(...(await this.#half(layer, 'ffn', source, after, after)));
    await after.sync();
    return damage;
  }

  /** Rounds the head by what the last layer leaves. The damage, in the order of headBlocks. */
  async head(): Promise<number[]> {
    const [residuals] = this.#filesOf(this.#shape.layers);
    const damage = await this.#inputProducts(residuals, this.#constant('finalNorm'));
    const tiles = tileCount(this.#shape, 'head');
    let index = 0;
    for await (const source of this.#options.headTiles()) {
      const sampled = isSampled(index++, tiles) ? damage : null;
      await this.#options.addTile(await roundHeadTile(this.#shape, source, this.#input, sampled));
      this.#options.onWork(inputPanelsWork(this.#shape, 'head'));
    }
    return damage.total();
  }

  #filesOf(layer: number): [before: ResidualFile, after: ResidualFile] {
    const { residuals } = this.#options;
    return [residuals[layer % 2]!, residuals[(layer + 1) % 2]!];
  }

  async #half(
    layer: number,
    half: Half,
    source: AsyncGenerator<Uint8Array>,
    before: ResidualFile,
    after: ResidualFile,
  ): Promise<number[]> {
    this.#tiles.clear();
    const norm = this.#constant(half === 'attention' ? 'attentionNorm' : 'ffnNorm', layer);
    const inputDamage = await this.#inputProducts(before, norm);
    const hiddenDamage = new PartsDamage();
    for (const batch of tileBatches(this.#shape, layer, half)) {
      const rounded: RoundedTile[] = [];
      const places: PlacedTile[] = [];
      for (const index of batch.tiles) {
        const next = await source.next();
        if (next.done) throw new PotluckError('INTERNAL', 'Too few source tiles.');
        const sampled = isSampled(index, layerTileCount(this.#shape, batch.kind, layer)) ? inputDamage : null;
        const tile = await roundInputs(this.#shape, batch.kind, next.value, this.#input, sampled);
        if (batch.kind === 'attention') await this.#writeKeyMean(layer, tile, before, norm);
        this.#options.onWork(inputPanelsWork(this.#shape, batch.kind));
        rounded.push(tile);
        places.push(this.#tiles.place(batch.kind, index, tile.tile));
      }
      for (const span of batch.spans)
        await this.#roundOutputs({ layer, half, batch, span, rounded, places, before, damage: hiddenDamage });
    }
    await this.#run(layer, half, before, after);
    for (const tile of this.#tiles.inOrder()) await this.#options.addTile(tile);
    return [...inputDamage.total(), ...hiddenDamage.total()];
  }

  /** Fits the fixed-point scales to the first window and runs the half layer on all of them. */
  async #run(layer: number, half: Half, before: ResidualFile, after: ResidualFile): Promise<void> {
    const { constants, windows } = this.#options;
    await this.#load(before, 0);
    await fitScales(
      { shape: this.#shape, constants, tokens: windows[0]! },
      this.#model,
      this.#tiles,
      layer,
      half,
    );
    for (let window = 0; window < windows.length; window++) {
      const residual = await this.#load(before, window);
      await runHalf(this.#shape, this.#model, this.#tiles, layer, half);
      await after.write(window * this.#tokens, residual);
      for (const { kind, tiles } of tileBatches(this.#shape, layer, half))
        this.#options.onWork(runWork(this.#shape, kind, tiles.length, this.#tokens));
    }
  }

  /** Products of the normed and rotated residuals, factored, in #input. What they damage is to be found. */
  async #inputProducts(residuals: ResidualFile, norm: Float32Array): Promise<InputDamage> {
    const columns = roundUp(this.#shape.width, GROUP);
    const rows = new Float32Array(this.#tokens * this.#shape.width);
    const kept = new Float32Array(DAMAGE_TOKENS * columns);
    this.#input.begin(columns);
    for (let window = 0; window < this.#options.windows.length; window++) {
      await residuals.read(window * this.#tokens, rows);
      const inputs = this.#input.inputs(this.#tokens);
      normedInput(this.#shape, rows, norm, inputs);
      this.#samples.keep(window, inputs, columns, kept);
      await this.#input.add(this.#tokens);
      this.#options.onWork(productsWork(this.#tokens, columns));
    }
    await this.#input.factor();
    this.#options.onWork(factorWork(columns));
    return new InputDamage(kept, columns);
  }

  /** Rounds the last panels of a span of tiles by the hidden activations of these tiles. */
  async #roundOutputs({ layer, half, batch, span, rounded, places, before, damage }: Span): Promise<void> {
    const columns = outputColumns(this.#shape, batch.kind);
    const capture = this.#captureOf(batch.kind);
    const mine = span.map(i => rounded[i]!);
    this.#output.begin(columns * span.length);
    const copies = this.#tiles.copies(
      batch.kind,
      span.map(i => places[i]!),
      mine.map(({ tile }) => tile),
    );
    const kept = await this.#captureHidden(layer, half, batch.kind, capture, copies, before);
    for (const [i, tile] of mine.entries())
      damage.add(columnsOf(kept, i, columns, span.length), columns, someOutputRows(this.#shape, tile));
    await this.#output.factor();
    this.#options.onWork(factorWork(columns * span.length));
    await this.#output.round(
      this.#shape.width,
      (row, target) => {
        for (const [i, tile] of mine.entries())
          outputRow(this.#shape, tile, row, target.subarray(i * columns, (i + 1) * columns));
      },
      (row, nibbles, scales) => {
        const groups = columns / GROUP;
        for (const [i, { tile }] of mine.entries())
          writeRoundedRow(
            capture.panel,
            row,
            nibbles.subarray(i * columns, (i + 1) * columns),
            scales.subarray(i * groups, (i + 1) * groups),
            tile,
          );
      },
    );
    this.#options.onWork(rowsWork(this.#shape.width, columns * span.length));
    for (const i of span) {
      writePaddingRows(capture.panel, rounded[i]!.tile);
      this.#tiles.write(places[i]!, rounded[i]!.tile);
    }
  }

  /** Adds the hidden activations of tiles on all windows to the products of #output; those of the samples. */
  async #captureHidden(
    layer: number,
    half: Half,
    kind: LayerTileKind,
    capture: TileCapture,
    copies: readonly TileCopy[],
    residuals: ResidualFile,
  ): Promise<Float32Array> {
    const columns = capture.panel.paddedColumns;
    const all = columns * copies.length;
    const runs = capture.runs(copies.length);
    const kept = new Float32Array(DAMAGE_TOKENS * all);
    const scale = this.#constant(half === 'attention' ? 'attentionScale' : 'ffnScale', layer);
    const wanted = mostUnits(this.#shape, half);
    let exponent = FIRST_EXPONENT;
    for (let window = 0; window < this.#options.windows.length; window++) {
      const inputs = this.#output.inputs(this.#tokens);
      await this.#load(residuals, window);
      for (;;) {
        scale.fill(2 ** exponent);
        this.#model.setConstants(this.#options.constants);
        await beginHalf(this.#model, this.#shape, layer, half, this.#tiles);
        let most = 0;
        let saturated = 0;
        const { partial } = this.#model.pass;
        for (let run = 0; run < runs; run++) {
          const [first, end] = capture.tilesOf(run, copies.length);
          // With one run the identities stay where they are.
          if (window === 0 || runs > 1)
            for (let i = first; i < end; i++) capture.replace(copies[i]!.bytes, i, run);
          partial.fill(0);
          const places = copies.slice(first, end).map(({ place }) => place);
          for (const step of captureSteps(kind, layer, half, places))
            saturated += (await this.#model.run([step])).saturated;
          most = largest(partial, most);
          capture.collect(run, partial, 2 ** -exponent, this.#tokens, inputs);
        }
        const next = betterExponent(exponent, most, saturated, wanted);
        if (window > 0 || next === exponent) break;
        exponent = next;
      }
      this.#samples.keep(window, inputs, all, kept);
      await this.#output.add(this.#tokens);
      this.#options.onWork(
        productsWork(this.#tokens, all) + runWork(this.#shape, kind, copies.length, this.#tokens),
      );
    }
    return kept;
  }

  async #writeKeyMean(
    layer: number,
    { kind, source, tile }: RoundedTile,
    residuals: ResidualFile,
    norm: Float32Array,
  ): Promise<void> {
    const mean = vectorOf(this.#shape, kind, 'keyMean', tile);
    if (mean.length === 0) return;
    const rows = new Float32Array(this.#tokens * this.#shape.width);
    await residuals.read(0, rows);
    mean.set(keyMean(this.#shape, layer, source, rows, norm));
  }

  /** Reads the residuals of a window into the model; those rows. */
  async #load(residuals: ResidualFile, window: number): Promise<Float32Array> {
    const rows = this.#model.pass.residual.subarray(0, this.#tokens * this.#shape.width);
    await residuals.read(window * this.#tokens, rows);
    return rows;
  }

  #captureOf(kind: LayerTileKind): TileCapture {
    const known = this.#captures.get(kind);
    if (known) return known;
    const made = new TileCapture(this.#shape, kind);
    this.#captures.set(kind, made);
    return made;
  }

  #constant(what: Parameters<typeof constantPlace>[1], layer = 0): Float32Array {
    const { first, floats } = constantPlace(this.#shape, what, layer);
    return new Float32Array(this.#options.constants, first * 4, floats);
  }
}

/** What the rounding of last panels needs. */
interface Span {
  readonly layer: number;
  readonly half: Half;
  readonly batch: TileBatch;
  readonly span: readonly number[];
  readonly rounded: readonly RoundedTile[];
  readonly places: readonly PlacedTile[];
  readonly before: ResidualFile;
  readonly damage: PartsDamage;
}

/** Tokens whose inputs are kept, spread over all windows. */
class Samples {
  readonly #of: { readonly window: number; readonly token: number }[];

  constructor(windows: number, tokens: number) {
    const all = windows * tokens;
    this.#of = Array.from({ length: DAMAGE_TOKENS }, (_, i) => {
      const at = Math.floor(((i + 0.5) * all) / DAMAGE_TOKENS);
      return { window: Math.floor(at / tokens), token: at % tokens };
    });
  }

  /** Copies the samples of a window. inputs: [tokens, columns]; kept: [DAMAGE_TOKENS, columns]. */
  keep(window: number, inputs: Float32Array, columns: number, kept: Float32Array): void {
    for (const [i, sample] of this.#of.entries())
      if (sample.window === window)
        kept.set(inputs.subarray(sample.token * columns, (sample.token + 1) * columns), i * columns);
  }
}

/** Columns of part `part` of `parts` of rows. rows: [.., parts * columns]. */
function columnsOf(rows: Float32Array, part: number, columns: number, parts: number): Float32Array {
  const stride = columns * parts;
  const out = new Float32Array(rows.length / parts);
  for (let row = 0; row * stride < rows.length; row++)
    out.set(rows.subarray(row * stride + part * columns, row * stride + (part + 1) * columns), row * columns);
  return out;
}

/** Steps that run tiles: as many of an expert at a time as one may have. */
function captureSteps(
  kind: LayerTileKind,
  layer: number,
  half: Half,
  places: readonly PlacedTile[],
): ReturnType<typeof partStep>[] {
  if (kind !== 'expert') return [partStep('tiles', layer, half, places)];
  const steps: ReturnType<typeof partStep>[] = [];
  for (let first = 0; first < places.length; first += MOST_EXPERT_TILES)
    steps.push(partStep('expert-tiles', layer, half, places.slice(first, first + MOST_EXPERT_TILES)));
  return steps;
}

/** The largest magnitude, `least` at the least. */
function largest(values: Int32Array, least: number): number {
  let most = least;
  for (let i = 0; i < values.length; i++) most = Math.max(most, Math.abs(values[i]!));
  return most;
}

/** Hidden activations in fixed point: where they begin, and what the largest should become. */
const FIRST_EXPONENT = 12;
const MOST_UNITS = 2 ** 24;
const EXPONENT_BOUND = 60;

/** What the largest hidden activation may become: half of what saturates, which is less where many tiles add up. */
function mostUnits(s: ModelShape, half: Half): number {
  const tiles = Math.max(...s.layerFeatures.map((_, layer) => summedTiles(s, layer, half)));
  return Math.min(MOST_UNITS, 2 ** (Math.floor(Math.log2((2 ** 31 - 1) / tiles)) - 1));
}

/** The exponent with which the largest activation, now `largestNow`, has as many bits as `most`, or nearly. */
function betterExponent(exponent: number, largestNow: number, saturated: number, most: number): number {
  if (saturated > 0) return Math.max(-EXPONENT_BOUND, exponent - 8);
  if (largestNow >= most / 64 || largestNow === 0) return exponent;
  return Math.min(EXPONENT_BOUND, exponent + Math.floor(Math.log2(most / largestNow)));
}
