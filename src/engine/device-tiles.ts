import type { Manifest, ModelShape } from '../pack/manifest.ts';
import { paddedVocabulary, tilesPerExpert } from '../pack/tile-shape.ts';

/** The tiles that one device computes, by half layer, as indices into the manifest; each list rises. */
export interface DeviceTiles {
  readonly attention: readonly (readonly number[])[];
  readonly ffn: readonly (readonly number[])[];
  readonly expert: readonly (readonly number[])[];
  readonly head: readonly number[];
  /** All of them in execution order. */
  readonly order: readonly number[];
}

/** Sorts `tiles` (indices into the manifest) into half layers. */
export function deviceTiles(manifest: Manifest, tiles: readonly number[]): DeviceTiles {
  const byLayer = (): number[][] => Array.from({ length: manifest.shape.layers }, () => []);
  const layers = { attention: byLayer(), ffn: byLayer(), expert: byLayer() };
  const head: number[] = [];
  const order = [...tiles].sort((a, b) => a - b);
  for (const tile of order) {
    const { kind, layer } = manifest.tiles[tile]!;
    if (kind === 'head') head.push(tile);
    else layers[kind][layer]!.push(tile);
  }
  return { ...layers, head, order };
}

/** Where a kernel finds what belongs to a tile: its part of a KV page, its expert, or its first vocabulary row. */
export function tileSlots(manifest: Manifest, tiles: DeviceTiles): Map<number, number> {
  const slots = new Map<number, number>();
  let kvSlot = 0;
  for (const tile of tiles.order) {
    const { kind, index } = manifest.tiles[tile]!;
    if (kind === 'attention') slots.set(tile, kvSlot++);
    else if (kind === 'expert') slots.set(tile, Math.floor(index / tilesPerExpert(manifest.shape)));
    else slots.set(tile, kind === 'head' ? index * manifest.shape.tiling.headRows : 0);
  }
  return slots;
}

/** Vocabulary ranges of head tiles, in tile order. */
export function headColumns(manifest: Manifest, head: readonly number[]): { start: number; count: number }[] {
  const { headRows } = manifest.shape.tiling;
  return head.map(tile => ({ start: manifest.tiles[tile]!.index * headRows, count: headRows }));
}

export const attentionTileCount = (tiles: DeviceTiles): number =>
  tiles.attention.reduce((sum, layer) => sum + layer.length, 0);

/**
 * Most tokens and logit rows of one pass: the same on every device, so a function of the shape alone. Tokens are
 * bounded by what the activations of a pass may take (about 16 MiB for the residual and the partial sums: 256 tokens up to a
 * width of 8192, so that such a prompt reads the weights once), rows by 8 MiB of logits.
 */
export function passLimits(shape: ModelShape): { maxTokens: number; maxLogitRows: number } {
  const bounded = (bytes: number, each: number, low: number, high: number): number =>
    Math.max(low, Math.min(high, Math.floor(bytes / each)));
  const maxTokens = bounded(16 << 20, shape.width * 8, 16, 256);
  return {
    maxTokens,
    maxLogitRows: Math.min(maxTokens, bounded(8 << 20, paddedVocabulary(shape) * 4, 16, 256)),
  };
}
