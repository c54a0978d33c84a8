import { PotluckError } from '../errors/errors.ts';
import type { Backend, BackendModel, Half, PlacedTile } from '../kernels/backend.ts';
import type { ModelShape } from '../pack/manifest.ts';
import { constantOffset, PAGE_POSITIONS, tileBytes, tileCount } from '../pack/tile-shape.ts';
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
  const attention = tileCount(shape, 'attention');
  const ffn = tileCount(shape, 'ffn');
  const weights = backend.allocate(attention * tileBytes(shape, 'attention') + ffn * tileBytes(shape, 'ffn'));
  try {
    const model = backend.openModel({
      shape,
      constants: options.constants,
      weights,
      attentionTiles: attention, // of one layer: the keys and values of layers before are not needed again
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
    pageTables: [Int32Array.from({ length: Math.ceil(tokens.length / PAGE_POSITIONS) }, (_, page) => page)],
    logitRows: new Int32Array(0),
  });
  await options.embed(tokens, model.pass.residual);
  for (let layer = 0; layer < shape.layers; layer++) {
    const placed = await placeLayer(options, weights, layer);
    await calibrateHalf(options, model, layer, 'attention', placed.attention);
    await calibrateHalf(options, model, layer, 'ffn', placed.ffn);
    options.onLayer?.(layer);
  }
}

/** Reads the tiles of a layer into the weights memory, one behind the other. */
async function placeLayer(
  { shape, readTile }: CalibrateOptions,
  weights: ArrayBuffer,
  layer: number,
): Promise<Record<Half, PlacedTile[]>> {
  const placed: Record<Half, PlacedTile[]> = { attention: [], ffn: [] };
  let offset = 0;
  let tile = layer * (tileCount(shape, 'attention') + tileCount(shape, 'ffn'));
  for (const half of ['attention', 'ffn'] as const) {
    const bytes = tileBytes(shape, half);
    for (let index = 0; index < tileCount(shape, half); index++) {
      await readTile(tile++, new Uint8Array(weights, offset, bytes));
      placed[half].push({ offset, slot: half === 'attention' ? index : 0 });
      offset += bytes;
    }
  }
  return placed;
}

/** Measures a half layer, writes its scales into the constants, and runs it. */
async function calibrateHalf(
  options: CalibrateOptions,
  model: BackendModel,
  layer: number,
  half: Half,
  tiles: readonly PlacedTile[],
): Promise<void> {
  const { shape, constants } = options;
  const first = constantOffset(shape, half === 'attention' ? 'attentionScale' : 'ffnScale', layer);
  const scales = new Float32Array(constants, first * 4, shape.width);
  const measureNow = () => {
    model.setConstants(constants);
    return measure(model, options.tokens.length, layer, half, tiles, scales);
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
  await model.run([
    { op: 'begin', layer, half },
    { op: 'tiles', layer, half, tiles },
    { op: 'end', layer, half },
  ]);
}

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
  tokens: number,
  layer: number,
  half: Half,
  tiles: readonly PlacedTile[],
  scales: Float32Array,
): Promise<ChannelRanges> {
  const outputs = new TileOutputs(tokens, scales.length);
  let saturated = 0;
  for (const tile of tiles) {
    const stats = await model.run([
      { op: 'begin', layer, half },
      { op: 'tiles', layer, half, tiles: [tile] },
    ]);
    saturated += stats.saturated;
    outputs.add(model.pass.partial);
  }
  return outputs.ranges(scales, saturated);
}
