import type { Backend, BackendModel, RunStats } from '../kernels/backend.ts';
import type { Manifest, ModelShape } from '../pack/manifest.ts';
import type { ExpertCache } from '../window-scheduler/expert-cache.ts';
import type { Window } from '../window-scheduler/window.ts';
import { attentionTileCount, type DeviceTiles, passLimits, tileSlots } from './device-tiles.ts';

export interface DevicePassOptions {
  readonly backend: Backend;
  readonly manifest: Manifest;
  readonly tiles: DeviceTiles;
  /** Constants blob in memory of the backend; see constantsFloats. */
  readonly constants: ArrayBuffer;
  /** Memory that the window places tiles in. */
  readonly weights: ArrayBuffer;
  readonly window: Window;
  /** Null where this device has no expert tiles. */
  readonly experts: ExpertCache | null;
  readonly kvPages: number;
}

/** One device's part of a plan: its tiles, the window they stream through, and the buffers of a pass. */
export class DevicePass {
  readonly shape: ModelShape;
  readonly tiles: DeviceTiles;
  readonly slots: ReadonlyMap<number, number>;
  readonly window: Window;
  readonly experts: ExpertCache | null;
  readonly model: BackendModel;
  readonly kvPages: number;
  /** Tile outputs that did not fit their fixed-point range, since the plan began. */
  saturated = 0;
  /** Time inside kernels, in microseconds, since the plan began. */
  computeMicroseconds = 0;

  constructor(options: DevicePassOptions) {
    const { manifest, tiles } = options;
    this.shape = manifest.shape;
    this.tiles = tiles;
    this.slots = tileSlots(manifest, tiles);
    this.window = options.window;
    this.experts = options.experts;
    this.kvPages = options.kvPages;
    this.model = options.backend.openModel({
      shape: manifest.shape,
      constants: options.constants,
      weights: options.weights,
      attentionTiles: attentionTileCount(tiles),
      kvPages: options.kvPages,
      ...passLimits(manifest.shape),
    });
  }

  /** This device's tiles of the experts that the router picked for tokens of the pass, in layer `layer`; rising. */
  pickedTiles(layer: number, tokens: number): number[] {
    const perToken = this.shape.experts!.perToken;
    const picked = new Set(this.model.pass.routes.subarray(0, tokens * perToken));
    return this.tiles.expert[layer]!.filter(tile => picked.has(this.slots.get(tile)!));
  }

  count(stats: RunStats): void {
    this.saturated += stats.saturated;
    this.computeMicroseconds += stats.computeMicroseconds;
  }

  async close(): Promise<void> {
    await this.window.close();
    await this.experts?.close();
    this.model.close();
  }
}
