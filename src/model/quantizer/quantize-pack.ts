import { join } from 'node:path';
import type { Rounding } from '../../kernels/addon.ts';
import type { Backend } from '../../kernels/backend.ts';
import type { FileSystem } from '../../pack/file-system.ts';
import type { ModelShape } from '../../pack/manifest.ts';
import { LayerQuantizer, WINDOW_TOKENS } from './quantize-layers.ts';
import { ResidualFile } from './residual-file.ts';
import { headWork, layerWork } from './rounding-work.ts';

/** Most calibration tokens: more than these measured no better. */
export const QUANTIZER_TOKENS = 24_576;

/** Files of a run, in its folder. */
export const RESIDUAL_FILES = ['residuals-0.bin', 'residuals-1.bin'] as const;

export interface QuantizePackOptions {
  readonly shape: ModelShape;
  readonly backend: Backend;
  readonly rounding: Rounding;
  readonly fileSystem: FileSystem;
  /** Where residuals are kept while it runs. */
  readonly folder: string;
  readonly constants: ArrayBuffer;
  readonly tokens: readonly number[];
  readonly beginToken: number | null;
  /** Layers that are done; their tiles are in the pack, and the residuals behind the last one in the folder. */
  readonly layersDone: number;
  /** Writes the embedding rows of `ids` to the start of `target`. */
  readonly embed: (ids: readonly number[], target: Float32Array) => Promise<void>;
  readonly layerTiles: (layer: number) => AsyncGenerator<Uint8Array>;
  readonly headTiles: () => AsyncGenerator<Uint8Array>;
  readonly addTile: (tile: Uint8Array) => Promise<void>;
  /** Layer, or the number of layers where the head is at work; multiply-adds done, of `total` (see rounding-work.ts). */
  readonly onWork: (layer: number, done: number, total: number) => void;
  /** The layer's tiles and its residuals are written; the constants have its scales. damage: in the order of layerBlocks. */
  readonly onLayer: (layer: number, damage: readonly number[]) => Promise<void>;
}

/** Rounds all layers that are not done, and the head; the damage of the head. See LayerQuantizer. */
export async function quantizePack(options: QuantizePackOptions): Promise<number[]> {
  const { shape, fileSystem, folder, layersDone } = options;
  const windows = calibrationWindows(options.tokens, options.beginToken, shape.context);
  const tokens = windows.length * windows[0]!.length;
  const works = shape.layerFeatures.map((_, layer) => layerWork(shape, layer, tokens));
  const total = works.reduce((sum, work) => sum + work, headWork(shape, tokens));
  let done = works.slice(0, layersDone).reduce((sum, work) => sum + work, 0);
  let at = layersDone;
  const onWork = (work: number) => {
    done += work;
    options.onWork(at, done, total);
  };
  const files: ResidualFile[] = [];
  try {
    for (const name of RESIDUAL_FILES)
      files.push(await ResidualFile.open(fileSystem, join(folder, name), shape.width));
    const residuals = [files[0]!, files[1]!] as const;
    const quantizer = new LayerQuantizer({ ...options, onWork, residuals, windows });
    try {
      if (layersDone === 0) await quantizer.embed(options.embed);
      for (; at < shape.layers; at++) await options.onLayer(at, await quantizer.layer(at));
      return await quantizer.head();
    } finally {
      quantizer.close();
    }
  } finally {
    for (const file of files) await file.close();
  }
}

/** Windows of one length, each behind the begin token; what does not fill the last is left out, unless it is the only one. */
function calibrationWindows(
  tokens: readonly number[],
  beginToken: number | null,
  context: number,
): number[][] {
  const begin = beginToken === null ? [] : [beginToken];
  const size = Math.min(WINDOW_TOKENS, context, tokens.length + begin.length) - begin.length;
  const windows: number[][] = [];
  const most = Math.floor(QUANTIZER_TOKENS / WINDOW_TOKENS);
  for (let first = 0; first + size <= tokens.length && windows.length < most; first += size)
    windows.push([...begin, ...tokens.slice(first, first + size)]);
  return windows;
}
