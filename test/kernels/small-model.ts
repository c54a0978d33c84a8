import type { Backend, BackendModel, Batch, PlacedTile, Step } from '../../src/kernels/backend.ts';
import type { ModelShape, TileKind } from '../../src/pack/manifest.ts';
import { plainFeatures } from '../../src/pack/plain-shape.ts';
import {
  constantOffset,
  constantsFloats,
  type Panel,
  paddedVocabulary,
  tileBytes,
  tileCount,
  tilePanels,
} from '../../src/pack/tile-shape.ts';
import { randomSource } from './addon-under-test.ts';
import { type MadePanel, makeBf16, makeW4 } from './panels.ts';

/** A model with random weights, as bytes for a backend and as numbers for the oracle. */
export interface SmallModel {
  readonly shape: ModelShape;
  readonly constants: ArrayBuffer;
  /** By layer (head tiles in layer 0), kind and index. */
  tile(kind: TileKind, layer: number, index: number): SmallTile;
}

export interface SmallTile {
  readonly bytes: Uint8Array;
  /** [panels], the weights as stored; [paddedRows][paddedColumns] */
  readonly panels: readonly (readonly Float64Array[])[];
}

export function smallShape(changes: Partial<ModelShape> = {}): ModelShape {
  const headDim = changes.headDim ?? 20;
  return {
    weights: 'w4',
    width: 48,
    layers: 2,
    queryHeads: 4,
    kvHeads: 2,
    headDim,
    ffnWidth: 80,
    vocabulary: 70,
    context: 96,
    normEpsilon: 1e-5,
    ...plainFeatures(
      changes.layers ?? 2,
      headDim,
      Array.from({ length: headDim / 2 }, (_, i) => 100 ** ((-2 * i) / headDim)),
    ),
    tiling: { partsPerKvHead: 1, ffnColumns: 32, headRows: 32 },
    hadamard: 0,
    kvBits: changes.weights === 'bf16' ? 32 : 16,
    ...changes,
  };
}

/** Rows and columns of the panel that the model has; the rest is padding, and zero. */
function realSize(
  s: ModelShape,
  kind: TileKind,
  panel: Panel,
  index: number,
): [rows: number, columns: number] {
  if (kind === 'attention') return [panel.rows, panel.columns];
  if (kind === 'head') return [Math.min(panel.rows, s.vocabulary - index * s.tiling.headRows), panel.columns];
  const columns = Math.min(s.tiling.ffnColumns, s.ffnWidth - index * s.tiling.ffnColumns);
  return panel.columns === s.width ? [panel.rows, s.width] : [panel.rows, columns];
}

export function makeSmallModel(shape: ModelShape, seed = 1): SmallModel {
  const random = randomSource(seed);
  const tiles = new Map<string, SmallTile>();
  const make = (kind: TileKind, layer: number, index: number) => {
    const bytes = new Uint8Array(tileBytes(shape, kind));
    const panels = tilePanels(shape, kind).map(panel => {
      const [rows, columns] = realSize(shape, kind, panel, index);
      const made = makePanel(shape, panel, rows, columns, random);
      bytes.set(made.bytes, panel.offset);
      return made.weights;
    });
    tiles.set(`${kind} ${layer} ${index}`, { bytes, panels });
  };
  for (const kind of ['attention', 'ffn'] as const)
    for (let layer = 0; layer < shape.layers; layer++)
      for (let index = 0; index < tileCount(shape, kind); index++) make(kind, layer, index);
  for (let index = 0; index < tileCount(shape, 'head'); index++) make('head', 0, index);
  return {
    shape,
    constants: makeConstants(shape, random),
    tile: (kind, layer, index) => tiles.get(`${kind} ${layer} ${index}`)!,
  };
}

function makePanel(
  s: ModelShape,
  panel: Panel,
  rows: number,
  columns: number,
  random: () => number,
): MadePanel {
  const size = 1 / Math.sqrt(columns * Math.max(1, s.hadamard)); // rotated inputs are longer
  const inside = (row: number, column: number) => row < rows && column < columns;
  if (s.weights === 'bf16')
    return makeBf16(panel.paddedRows, panel.paddedColumns, (row, column) =>
      inside(row, column) ? (random() * 2 - 1) * size * 1.7 : 0,
    );
  return makeW4(
    panel.paddedRows,
    panel.paddedColumns,
    (row, column) => (inside(row, column) ? Math.floor(random() * 16) : 8),
    (row, group) => (inside(row, group * 32) ? ((0.5 + random()) * size) / 5 : 0),
  );
}

function makeConstants(s: ModelShape, random: () => number): ArrayBuffer {
  const constants = new Float32Array(constantsFloats(s));
  for (let layer = 0; layer < s.layers; layer++) {
    for (const norm of ['attentionNorm', 'ffnNorm'] as const)
      for (let i = 0; i < s.width; i++) constants[constantOffset(s, norm, layer) + i] = 0.5 + random();
    for (const scale of ['attentionScale', 'ffnScale'] as const)
      for (let i = 0; i < s.width; i++)
        constants[constantOffset(s, scale, layer) + i] = 2 ** (20 + Math.floor(random() * 4));
  }
  for (let i = 0; i < s.width; i++) constants[constantOffset(s, 'finalNorm') + i] = 0.5 + random();
  return constants.buffer;
}

/** A device: a model opened with some of the tiles in its memory. */
export class SmallDevice {
  readonly model: BackendModel;
  readonly shape: ModelShape;
  readonly #backend: Backend;
  readonly #weights: ArrayBuffer;
  readonly #placed = new Map<string, PlacedTile[]>();

  /** `mine(kind, layer, index)`: whether a tile is of this device. */
  constructor(
    backend: Backend,
    small: SmallModel,
    options: {
      maxTokens?: number;
      kvPages?: number;
      mine?: (kind: TileKind, layer: number, index: number) => boolean;
    } = {},
  ) {
    const { shape } = small;
    const mine = options.mine ?? (() => true);
    this.shape = shape;
    this.#backend = backend;
    const chosen: { key: string; slot: number; bytes: Uint8Array }[] = [];
    let attentionTiles = 0;
    const choose = (kind: TileKind, layer: number) => {
      for (let index = 0; index < tileCount(shape, kind); index++) {
        if (!mine(kind, layer, index)) continue;
        const slot =
          kind === 'attention' ? attentionTiles++ : kind === 'ffn' ? 0 : index * shape.tiling.headRows;
        chosen.push({ key: `${kind} ${layer}`, slot, bytes: small.tile(kind, layer, index).bytes });
      }
    };
    for (let layer = 0; layer < shape.layers; layer++) for (const kind of HALVES) choose(kind, layer);
    choose('head', 0);
    this.#weights = backend.allocate(
      Math.max(
        1,
        chosen.reduce((sum, { bytes }) => sum + bytes.length, 0),
      ),
    );
    let offset = 0;
    for (const { key, slot, bytes } of chosen) {
      new Uint8Array(this.#weights, offset).set(bytes);
      this.#placed.set(key, [...(this.#placed.get(key) ?? []), { offset, slot }]);
      offset += bytes.length;
    }
    this.model = backend.openModel({
      shape,
      constants: small.constants,
      weights: this.#weights,
      attentionTiles,
      kvPages: options.kvPages ?? 16,
      maxTokens: options.maxTokens ?? 40,
      maxLogitRows: options.maxTokens ?? 40,
    });
  }

  tiles(kind: TileKind, layer = 0): PlacedTile[] {
    return this.#placed.get(`${kind} ${layer}`) ?? [];
  }

  /** All steps of a pass where this device is the only one. */
  allSteps(): Step[] {
    const steps: Step[] = [];
    for (let layer = 0; layer < this.shape.layers; layer++)
      for (const half of HALVES)
        steps.push(
          { op: 'begin', layer, half },
          { op: 'tiles', layer, half, tiles: this.tiles(half, layer) },
          { op: 'end', layer, half },
        );
    return [...steps, { op: 'head-begin' }, { op: 'head-tiles', tiles: this.tiles('head') }];
  }

  /** Copies of the logit rows that the batch asked for; [rows][vocabulary]. */
  logits(rows: number): Float32Array[] {
    const stride = paddedVocabulary(this.shape);
    return Array.from({ length: rows }, (_, row) =>
      this.model.pass.logits.slice(row * stride, row * stride + this.shape.vocabulary),
    );
  }

  close(): void {
    this.model.close();
    this.#backend.release(this.#weights);
  }
}

export const HALVES = ['attention', 'ffn'] as const;

/** Tokens of some sequences: sequence i has pages i * 4 .. i * 4 + 3 and gives `counts[i]` tokens from `starts[i]`. */
export function makeBatch(starts: readonly number[], counts: readonly number[]): Batch {
  const positions: number[] = [];
  const sequences: number[] = [];
  counts.forEach((count, i) => {
    for (let t = 0; t < count; t++) {
      positions.push(starts[i]! + t);
      sequences.push(i);
    }
  });
  return {
    positions: Int32Array.from(positions),
    sequences: Int32Array.from(sequences),
    pageTables: counts.map((_, i) => Int32Array.of(i * 4 + 2, i * 4, i * 4 + 3, i * 4 + 1)),
    logitRows: Int32Array.from(positions, (_, i) => i),
    lengths: Int32Array.from(positions, position => position + 1),
  };
}

/** What the hub embeds for a token of a sequence: random, the same whenever it is asked for. */
export function embedded(width: number, sequence: number, position: number): Float32Array {
  const random = randomSource(sequence * 1000 + position + 7);
  return Float32Array.from({ length: width }, () => random() * 2 - 1);
}

export function writeEmbedded(device: SmallDevice, batch: Batch): void {
  const { width } = device.shape;
  batch.positions.forEach((position, t) => {
    device.model.pass.residual.set(embedded(width, batch.sequences[t]!, position), t * width);
  });
}

/** One whole pass on one device. */
export async function runPass(device: SmallDevice, batch: Batch): Promise<Float32Array[]> {
  device.model.pass.logits.fill(-7.25e31);
  device.model.pass.partial.fill(0x5a5a5a5a);
  device.model.setBatch(batch);
  writeEmbedded(device, batch);
  await device.model.run(device.allSteps());
  return device.logits(batch.logitRows.length);
}
