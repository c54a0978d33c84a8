import { type FileHandle, open } from 'node:fs/promises';
import { loadAddon, loadBackend } from '../../daemon/load-backend.ts';
import { mebibytes } from '../../daemon/memory-account.ts';
import { systemMemory } from '../../daemon/process-memory.ts';
import { TIMERS } from '../../daemon/timers.ts';
import { createNativeTileSource } from '../../disk-io/native-tile-source.ts';
import { openPageCache } from '../../disk-io/page-cache.ts';
import { DevicePass } from '../../engine/device-pass.ts';
import { deviceTiles } from '../../engine/device-tiles.ts';
import { PlanRunner } from '../../engine/plan-runner.ts';
import { PotluckError } from '../../errors/errors.ts';
import type { Addon } from '../../kernels/addon.ts';
import type { LogitMath } from '../../kernels/logit-math.ts';
import { Embedding } from '../../model/embedding.ts';
import { readFully } from '../../pack/file-system.ts';
import type { PackFolder } from '../../pack/pack-folder.ts';
import { PAGE_POSITIONS } from '../../pack/tile-shape.ts';
import { planWindow } from '../../window-scheduler/plan-window.ts';
import { Window } from '../../window-scheduler/window.ts';

/** Threads and kernels that compute a resident model, with the passes of the engine on top. */
export interface Lane {
  readonly kernel: string;
  readonly threads: number;
  readonly device: DevicePass;
  readonly runner: PlanRunner;
  readonly logitMath: LogitMath;
}

export interface LaneOptions {
  readonly threads: number;
  /** Kernel by name; null: POTLUCK_KERNEL, or the fastest. */
  readonly kernel?: string | null;
  readonly backend?: 'native' | 'onnxruntime';
}

const READ_THREADS = 2;
const EMBEDDING_CACHE_BYTES = 1 << 20;
/** What a bench leaves of the memory that is free. */
const SPARE_BYTES = 256 * 2 ** 20;

/**
 * A whole pack in memory, on this one device, for passes as a daemon runs them. Several lanes may compute with it, in
 * turn: they share the weights.
 */
export class ResidentModel {
  readonly addon: Addon;
  readonly pack: PackFolder;
  /** All tiles, in memory of the addon. */
  readonly weights: ArrayBuffer;
  readonly #window: Window;
  readonly #constants: ArrayBuffer;
  readonly #embedding: Embedding;
  readonly #positions: number;
  readonly #opened: (() => Promise<void> | void)[] = [];

  private constructor(
    addon: Addon,
    pack: PackFolder,
    checks: Uint8Array,
    positions: number,
    file: FileHandle,
  ) {
    this.addon = addon;
    this.pack = pack;
    this.#positions = positions;
    this.#opened.push(() => file.close());
    const path = pack.tilesPath;
    const tiles = pack.manifest.tiles.map(({ bytes, offset }, tile) => ({
      tile,
      bytes,
      place: { path, offset },
    }));
    this.weights = this.#allocate(tiles.reduce((sum, { bytes }) => sum + bytes, 0));
    this.#constants = this.#allocate(pack.constants.byteLength);
    new Uint8Array(this.#constants).set(new Uint8Array(pack.constants));
    const source = createNativeTileSource(addon, {
      threads: READ_THREADS,
      locate: tile => ({ path: pack.tilesPath, ...pack.manifest.tiles[tile]! }),
    });
    this.#opened.push(() => source.close());
    this.#window = new Window({
      memory: this.weights,
      budget: this.weights.byteLength,
      // Everything stays: no ring.
      plan: { ...planWindow(tiles, this.weights.byteLength), ringBytes: 0 },
      discard: (offset, bytes) => addon.discard(this.weights, offset, bytes),
      source,
      now: () => TIMERS.now() * 1000,
    });
    this.#opened.push(() => this.#window.close());
    const cached = openPageCache(addon, path);
    this.#opened.push(() => cached.close());
    this.#embedding = new Embedding({
      manifest: pack.manifest,
      cacheBytes: EMBEDDING_CACHE_BYTES,
      readAt: (offset, target) => readFully(file, path, target, offset),
      checks,
      crc32c: bytes => addon.crc32c(bytes),
      readCached: cached.read,
    });
  }

  /** Reads the pack into memory, with room for `positions` positions of a sequence. Rejects with MEMORY_TOO_SMALL, ... */
  static async open(pack: PackFolder, positions: number): Promise<ResidentModel> {
    const { addon, reason } = loadAddon();
    if (addon === null)
      throw new PotluckError(
        'KERNEL_FAILED',
        `The native addon does not load (${reason}): nothing to measure.`,
      );
    if (pack.manifest.shape.experts !== null)
      throw new PotluckError(
        'BAD_OPTION',
        `${pack.manifest.name} has experts: only dense shapes are measured.`,
      );
    const bytes = pack.manifest.tiles.reduce((sum, tile) => sum + tile.bytes, 0);
    const free = systemMemory().availableBytes;
    if (bytes + SPARE_BYTES > free)
      throw new PotluckError(
        'MEMORY_TOO_SMALL',
        `The weights of ${pack.manifest.name} take ${mebibytes(bytes)} and ${mebibytes(free)} are free. Measure a smaller shape.`,
      );
    const checks = await pack.embeddingChecks();
    const model = new ResidentModel(addon, pack, checks, positions, await open(pack.tilesPath, 'r'));
    try {
      await model.#window.start();
      return model;
    } catch (error) {
      await model.close();
      throw error;
    }
  }

  /** Bytes of weights that a pass for one token reads. */
  get weightBytes(): number {
    return this.weights.byteLength;
  }

  /** Multiply-adds with weights that a pass does for each token, without the head. */
  get layerMultiplyAdds(): number {
    const s = this.pack.manifest.shape;
    const attention = 2 * (s.queryHeads + s.kvHeads) * s.headDim * s.width;
    return s.layers * (attention + 3 * s.ffnWidth * s.width);
  }

  /** The same for each row of logits. */
  get headMultiplyAdds(): number {
    const s = this.pack.manifest.shape;
    return s.vocabulary * s.width;
  }

  /** Page table of the one sequence that lanes compute. */
  get pages(): Int32Array {
    return Int32Array.from({ length: Math.ceil(this.#positions / PAGE_POSITIONS) }, (_, page) => page);
  }

  /** Opens a lane; it is closed with the model. */
  async lane({ threads, kernel = null, backend = 'native' }: LaneOptions): Promise<Lane> {
    const { manifest } = this.pack;
    const loaded = await loadBackend({ backend, kernel, threads });
    this.#opened.push(() => loaded.backend.close());
    const device = new DevicePass({
      backend: loaded.backend,
      manifest,
      tiles: deviceTiles(manifest, [...manifest.tiles.keys()]),
      constants: this.#constants,
      weights: this.weights,
      window: this.#window,
      experts: null,
      kvPages: this.pages.length,
    });
    this.#opened.push(() => device.model.close());
    const runner = new PlanRunner(TIMERS);
    runner.begin({
      epoch: 1,
      device,
      star: null,
      kvPages: this.pages.length,
      embed: (ids, target) => this.#embedding.embed(ids, target),
    });
    return { kernel: loaded.backend.name, threads, device, runner, logitMath: loaded.backend.logitMath };
  }

  async close(): Promise<void> {
    for (const free of this.#opened.splice(0).reverse()) await free();
  }

  #allocate(bytes: number): ArrayBuffer {
    const memory = this.addon.allocate(bytes);
    this.#opened.push(() => this.addon.release(memory));
    return memory;
  }
}
