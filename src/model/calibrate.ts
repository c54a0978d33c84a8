import { PotluckError } from '../errors/errors.ts';
import {
  type Backend,
  type BackendModel,
  type Half,
  MOST_EXPERT_TILES,
  type PlacedTile,
  type Step,
} from '../kernels/backend.ts';
import type { ModelShape } from '../pack/manifest.ts';
import {
  constantOffset,
  layerTileCount,
  PAGE_POSITIONS,
  tileBytes,
  tileCount,
  tilesPerExpert,
} from '../pack/tile-shape.ts';
import { type ChannelRanges, fixedPointScales, TileOutputs } from './calibrate-ranges.ts';

/** Most tokens of a calibration. */
export const CALIBRATION_TOKENS = 256;

export interface CalibrateOptions {
  readonly shape: ModelShape;
  readonly backend: Backend;
  /** Constants blob with the norms; the scales are written into it. */
  readonly constants: ArrayBuffer;
  /** 1 to CALIBRATION_TOKENS token ids, fewer than the context. */
  readonly tokens: readonly number[];
  /** Writes the embedding rows of `ids` to the start of `target`. */
  embed(ids: readonly number[], target: Float32Array): Promise<void>;
  /** Reads tile `tile` (place in execution order) into `target`. */
  readTile(tile: number, target: Uint8Array): Promise<void>;
  readonly onLayer?: (layer: number) => void;
}

/** Powers of two by which a scale that fits badly is moved. */
const STRIDE = 8;
/** Exponent of the first scale, and the largest. */
const FIRST_EXPONENT = 12;
const MOST_EXPONENT = 60;
/** A measurement with one scale for all channels is good when the median channel reaches this many units. */
const GOOD_UNITS = 2 ** 8;
/** Measurements with the scales that were found, each coarser than the one before. */
const ROUNDS = 4;

/**
 * Finds the fixed-point scale of every channel of every half layer: runs the pack itself over `tokens`, layer by layer,
 * with the tiles of one layer in memory. A half layer is measured tile by tile, with one scale for all channels and then
 * with the scales so found; then it is run as ever, so that the next one sees what it would see. Rejects with
 * KERNEL_FAILED, and with CHECKPOINT_INVALID where a layer gives no finite numbers.
 */
export async function calibrate(options: CalibrateOptions): Promise<void> {
  const { shape, backend, tokens } = options;
  if (tokens.length === 0 || tokens.length > Math.min(CALIBRATION_TOKENS, shape.context))
    throw new PotluckError('INTERNAL', `${tokens.length} calibration tokens.`);
  const weights = backend.allocate(layerMemory(shape));
  try {
    const model = backend.openModel({
      shape,
      constants: options.constants,
      weights,
      attentionTiles: tileCount(shape, 'attention'), // of one layer: the keys and values of layers before are not needed again
      kvPages: Math.ceil(tokens.length / PAGE_POSITIONS),
      maxTokens: tokens.length,
      maxLogitRows: 1,
    });
    try {
      await calibrateLayers(options, model, weights);
    } finally {
      model.close();
    }
  } finally {
    backend.release(weights);
  }
}

async function calibrateLayers(
  options: CalibrateOptions,
  model: BackendModel,
  weights: ArrayBuffer,
): Promise<void> {
  const { shape, tokens } = options;
  model.setBatch({
    positions: Int32Array.from(tokens.keys()),
    sequences: new Int32Array(tokens.length),
    lengths: new Int32Array(tokens.length).fill(tokens.length),
    pageTables: [Int32Array.from({ length: Math.ceil(tokens.length / PAGE_POSITIONS) }, (_, page) => page)],
    logitRows: new Int32Array(0),
  });
  await options.embed(tokens, model.pass.residual);
  const reader = new LayerTiles(options, weights);
  for (let layer = 0; layer < shape.layers; layer++) {
    await reader.place(layer);
    for (const half of ['attention', 'ffn'] as const)
      await calibrateHalf(options, model, reader, layer, half);
    options.onLayer?.(layer);
  }
}

type Kind = 'attention' | 'ffn' | 'expert';

/** Bytes that LayerTiles places tiles in. */
export function layerMemory(shape: ModelShape): number {
  const bytes = (kind: Kind, tiles: number) => tiles * tileBytes(shape, kind);
  return (
    bytes('attention', tileCount(shape, 'attention')) +
    bytes('ffn', tileCount(shape, 'ffn')) +
    bytes('expert', Math.min(MOST_EXPERT_TILES, tileCount(shape, 'expert')))
  );
}

/** The tiles of one layer: those of its dense parts in memory one behind the other, those of experts some at a time. */
export class LayerTiles implements HalfTiles {
  readonly #options: Pick<CalibrateOptions, 'shape' | 'readTile'>;
  readonly #weights: ArrayBuffer;
  readonly #dense: Record<'attention' | 'ffn', PlacedTile[]> = { attention: [], ffn: [] };
  /** Next tile of the pack. */
  #tile = 0;
  #firstExpert = 0;
  #experts = 0;
  /** Where expert tiles are placed. */
  #offset = 0;

  constructor(options: Pick<CalibrateOptions, 'shape' | 'readTile'>, weights: ArrayBuffer) {
    this.#options = options;
    this.#weights = weights;
  }

  async place(layer: number): Promise<void> {
    const { shape } = this.#options;
    this.#offset = 0;
    for (const kind of ['attention', 'ffn'] as const) {
      this.#dense[kind] = [];
      for (let index = 0; index < layerTileCount(shape, kind, layer); index++) {
        const slot = kind === 'attention' ? index : 0;
        this.#dense[kind].push(await this.#read(kind, this.#tile++, slot));
      }
    }
    this.#experts = layerTileCount(shape, 'expert', layer);
    this.#firstExpert = this.#tile;
    this.#tile += this.#experts;
  }

  /** Tiles of a half layer with the kind of step that runs them. */
  async *parts(half: Half): AsyncGenerator<{ op: 'tiles' | 'expert-tiles'; tiles: PlacedTile[] }> {
    if (this.#dense[half].length > 0) yield { op: 'tiles', tiles: this.#dense[half] };
    if (half === 'attention') return;
    const { shape } = this.#options;
    const begin = this.#offset;
    for (let first = 0; first < this.#experts; first += MOST_EXPERT_TILES) {
      const tiles: PlacedTile[] = [];
      for (let index = first; index < Math.min(this.#experts, first + MOST_EXPERT_TILES); index++) {
        const expert = Math.floor(index / tilesPerExpert(shape));
        tiles.push(await this.#read('expert', this.#firstExpert + index, expert));
      }
      this.#offset = begin;
      yield { op: 'expert-tiles', tiles };
    }
  }

  async #read(kind: Kind, tile: number, slot: number): Promise<PlacedTile> {
    const { shape, readTile } = this.#options;
    const offset = this.#offset;
    this.#offset += tileBytes(shape, kind);
    await readTile(tile, new Uint8Array(this.#weights, offset, tileBytes(shape, kind)));
    return { offset, slot };
  }
}

/** Measures a half layer, writes its scales into the constants, and runs it. */
async function calibrateHalf(
  options: CalibrateOptions,
  model: BackendModel,
  reader: HalfTiles,
  layer: number,
  half: Half,
): Promise<void> {
  await fitScales(options, model, reader, layer, half);
  await runHalf(options.shape, model, reader, layer, half);
}

/** The tiles of a half layer that are in memory, with the kind of step that runs them. */
export interface HalfTiles {
  parts(half: Half): AsyncIterable<{ op: 'tiles' | 'expert-tiles'; tiles: readonly PlacedTile[] }>;
}

/**
 * Measures a half layer on the tokens of the batch and writes its scales into the constants, which the model then has. The
 * residual stays. Rejects with KERNEL_FAILED, and with CHECKPOINT_INVALID where it gives no finite numbers.
 */
export async function fitScales(
  options: Pick<CalibrateOptions, 'shape' | 'constants' | 'tokens'>,
  model: BackendModel,
  reader: HalfTiles,
  layer: number,
  half: Half,
): Promise<void> {
  const { shape, constants } = options;
  const first = constantOffset(shape, half === 'attention' ? 'attentionScale' : 'ffnScale', layer);
  const scales = new Float32Array(constants, first * 4, shape.width);
  const measureNow = () => {
    model.setConstants(constants);
    return measure(model, options, layer, half, reader, scales);
  };
  const coarse = await measureCoarsely(scales, measureNow);
  const found = coarse && (await measureFinely(scales, coarse, measureNow));
  if (!found)
    throw new PotluckError(
      'CHECKPOINT_INVALID',
      `Layer ${layer}, ${half}: its outputs are not finite numbers. Download the checkpoint again.`,
    );
  scales.set(fixedPointScales(found));
  model.setConstants(constants);
}

/** Runs a half layer as ever, on the tokens of the batch. */
export async function runHalf(
  shape: ModelShape,
  model: BackendModel,
  reader: HalfTiles,
  layer: number,
  half: Half,
): Promise<void> {
  await beginHalf(model, shape, layer, half, reader);
  for await (const { op, tiles } of reader.parts(half)) await model.run([partStep(op, layer, half, tiles)]);
  await model.run([{ op: 'end', layer, half }]);
}

/** Begins a half layer; where all heads are normed as one, after their squares. */
export async function beginHalf(
  model: BackendModel,
  shape: ModelShape,
  layer: number,
  half: Half,
  reader: HalfTiles,
): Promise<void> {
  await model.run([{ op: 'begin', layer, half }]);
  if (half === 'ffn' || shape.norms.queryKey !== 'whole') return;
  for await (const { tiles } of reader.parts(half))
    await model.run([
      { op: 'squares', layer, tiles },
      { op: 'square-norms', layer },
    ]);
}

export const partStep = (
  op: 'tiles' | 'expert-tiles',
  layer: number,
  half: Half,
  tiles: readonly PlacedTile[],
): Step => (op === 'tiles' ? { op, layer, half, tiles } : { op, layer, tiles });

/** Measures with one scale for all channels, moved until it neither saturates nor sees too little. */
async function measureCoarsely(
  scales: Float32Array,
  measureNow: () => Promise<ChannelRanges>,
): Promise<ChannelRanges | undefined> {
  let fitted: ChannelRanges | undefined;
  for (
    let exponent = FIRST_EXPONENT;
    Math.abs(exponent) <= MOST_EXPONENT;
    exponent += fitted ? STRIDE : -STRIDE
  ) {
    scales.fill(2 ** exponent);
    const ranges = await measureNow();
    if (ranges.saturated > 0 && fitted) return fitted;
    if (ranges.saturated > 0) continue;
    fitted = ranges;
    if (exponent < FIRST_EXPONENT || ranges.medianUnits >= GOOD_UNITS) return fitted;
  }
  return fitted;
}

/** Measures once more with the scales that a coarse measurement gives. */
async function measureFinely(
  scales: Float32Array,
  coarse: ChannelRanges,
  measureNow: () => Promise<ChannelRanges>,
): Promise<ChannelRanges | undefined> {
  scales.set(fixedPointScales(coarse));
  for (let round = 0; round < ROUNDS; round++) {
    const ranges = await measureNow();
    if (ranges.saturated === 0) return ranges;
    for (let j = 0; j < scales.length; j++) scales[j]! *= 2 ** -STRIDE;
  }
  return undefined;
}

/** Runs a half layer tile by tile, without its end. */
async function measure(
  model: BackendModel,
  { shape, tokens }: Pick<CalibrateOptions, 'shape' | 'tokens'>,
  layer: number,
  half: Half,
  reader: HalfTiles,
  scales: Float32Array,
): Promise<ChannelRanges> {
  const outputs = new TileOutputs(tokens.length, scales.length, summedTiles(shape, layer, half));
  let saturated = 0;
  await beginHalf(model, shape, layer, half, reader);
  for await (const { op, tiles } of reader.parts(half))
    for (const tile of tiles) {
      model.pass.partial.fill(0);
      const stats = await model.run([partStep(op, layer, half, [tile])]);
      saturated += stats.saturated;
      outputs.add(model.pass.partial);
    }
  return outputs.ranges(scales, saturated);
}

/** Tiles whose outputs add up for one token. */
export function summedTiles(shape: ModelShape, layer: number, half: Half): number {
  const dense = layerTileCount(shape, half, layer);
  if (half === 'attention' || !shape.layerFeatures[layer]!.experts) return dense;
  return dense + shape.experts!.perToken * tilesPerExpert(shape);
}
