import type { Backend, BackendModel, RunStats } from '../kernels/backend.ts';
import type { Manifest, ModelShape } from '../pack/manifest.ts';
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
  readonly kvPages: number;
}

/** One device's part of a plan: its tiles, the window they stream through, and the buffers of a pass. */
export class DevicePass {
  readonly shape: ModelShape;
  readonly tiles: DeviceTiles;
  readonly slots: ReadonlyMap<number, number>;
  readonly window: Window;
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

  count(stats: RunStats): void {
    this.saturated += stats.saturated;
    this.computeMicroseconds += stats.computeMicroseconds;
  }

  async close(): Promise<void> {
    await this.window.close();
    this.model.close();
  }
}
