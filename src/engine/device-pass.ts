import { PotluckError } from '../errors/errors.ts';
import type { Backend, BackendModel, Batch, PlacedTile, RunStats, Step } from '../kernels/backend.ts';
import type { Manifest, ModelShape } from '../pack/manifest.ts';
import type { ExpertCache } from '../window-scheduler/expert-cache.ts';
import type { PlacedNow, Window } from '../window-scheduler/window.ts';
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
  /** Called before a pass, with the number of KV pages up to the highest that it uses, and its rows of logits. */
  readonly onPass?: (pages: number, logitRows: number) => void;
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
  readonly #onPass: (pages: number, logitRows: number) => void;
  /**
   * The steps of a whole pass without logits and with them, once they are known: what they are where all tiles are in
   * memory, each at its home, and nothing comes between steps.
   */
  readonly wholePass: { bare?: readonly Step[]; withLogits?: readonly Step[] } = {};
  /** Tile outputs that did not fit their fixed-point range, since the plan began. */
  saturated = 0;
  /** Time inside kernels, in microseconds, since the plan began. */
  computeMicroseconds = 0;
  /** Calls of kernels that ended, since the plan began, and whether one runs. */
  calls = 0;
  computing = false;
  /** The last call of kernels. */
  #running: Promise<RunStats> | null = null;
  #closed = false;

  constructor(options: DevicePassOptions) {
    const { manifest, tiles } = options;
    this.shape = manifest.shape;
    this.tiles = tiles;
    this.slots = tileSlots(manifest, tiles);
    this.window = options.window;
    this.experts = options.experts;
    this.kvPages = options.kvPages;
    this.#onPass = options.onPass ?? (() => undefined);
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

  /** Sets the tokens of the next pass, as BackendModel.setBatch. */
  begin(batch: Batch): void {
    let highest = -1;
    for (const table of batch.pageTables) for (const page of table) highest = Math.max(highest, page);
    this.#onPass(highest + 1, batch.logitRows.length);
    this.model.setBatch(batch);
  }

  /** The tiles of a list as kernels need them. */
  place(ready: readonly PlacedNow[]): PlacedTile[] {
    return ready.map(({ tile, offset }) => ({ offset, slot: this.slots.get(tile)! }));
  }

  /** Runs steps; see BackendModel.run. Rejects with KERNEL_FAILED, or STOPPED once this is closed. */
  async run(steps: readonly Step[], eager = false): Promise<void> {
    if (this.#closed) throw new PotluckError('STOPPED', 'The plan ended while a pass was running.');
    this.computing = true;
    this.#running = this.model.run(steps, eager).finally(() => {
      this.computing = false;
      this.calls++;
    });
    const { saturated, computeMicroseconds } = await this.#running;
    this.saturated += saturated;
    this.computeMicroseconds += computeMicroseconds;
  }

  /** Resolves when kernels and reads have let go of the memory: a pass that is on its way ends at its next step. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.window.close();
    await this.experts?.close();
    // Whoever runs the pass is told how it ended.
    await Promise.allSettled([this.#running]);
    this.model.close();
  }
}
