import { readFile } from 'node:fs/promises';
import type { Allreduce } from '../../src/allreduce/allreduce.ts';
import { crc32c } from '../../src/disk-io/crc32c.ts';
import type { TileSource } from '../../src/disk-io/tile-source.ts';
import { DevicePass } from '../../src/engine/device-pass.ts';
import { deviceTiles, headColumns } from '../../src/engine/device-tiles.ts';
import type { PassSequence } from '../../src/engine/pass-runner.ts';
import { makeBatch } from '../../src/engine/plan-runner.ts';
import { runLayers } from '../../src/engine/run-layers.ts';
import type { Backend } from '../../src/kernels/backend.ts';
import { Embedding } from '../../src/model/embedding.ts';
import type { PackFolder } from '../../src/pack/pack-folder.ts';
import { PAGE_POSITIONS, paddedVocabulary, tileBytes } from '../../src/pack/tile-shape.ts';
import { ExpertCache } from '../../src/window-scheduler/expert-cache.ts';
import { planWindow } from '../../src/window-scheduler/plan-window.ts';
import { Window } from '../../src/window-scheduler/window.ts';

export interface ClusterOptions {
  readonly devices: number;
  /** Share of the tiles' bytes that each device may keep; 1 where nothing is said. */
  readonly memory?: number;
}

/** Devices in one process, with real kernels, windows and caches, and sums by hand. */
export class ClusterInProcess {
  readonly devices: DevicePass[] = [];
  readonly #pack: PackFolder;
  readonly #file: Uint8Array;
  readonly #backends: readonly Backend[];
  readonly #resources: (() => void)[] = [];

  /** One backend a device: each runs one job at a time. */
  static async open(
    pack: PackFolder,
    backends: readonly Backend[],
    options: ClusterOptions,
  ): Promise<ClusterInProcess> {
    const cluster = new ClusterInProcess(pack, new Uint8Array(await readFile(pack.tilesPath)), backends);
    for (let device = 0; device < options.devices; device++)
      await cluster.#openDevice(device, options.devices, options.memory ?? 1);
    return cluster;
  }

  private constructor(pack: PackFolder, file: Uint8Array, backends: readonly Backend[]) {
    this.#pack = pack;
    this.#file = file;
    this.#backends = backends;
  }

  async #openDevice(device: number, devices: number, memory: number): Promise<void> {
    const { manifest } = this.#pack;
    const backend = this.#backends[device]!;
    const mine = manifest.tiles.flatMap(({ index }, tile) =>
      (index * 7 + index) % devices === device ? [tile] : [],
    );
    const tiles = deviceTiles(manifest, mine);
    const order = tiles.order
      .filter(tile => manifest.tiles[tile]!.kind !== 'expert')
      .map(tile => ({ tile, bytes: manifest.tiles[tile]!.bytes }));
    const each = tileBytes(manifest.shape, 'expert');
    const experts = tiles.expert.flat().length;
    const places = Math.max(2, Math.floor(experts * memory));
    const total = order.reduce((sum, { bytes }) => sum + bytes, 0);
    const largest = order.reduce((most, { bytes }) => Math.max(most, bytes), 0);
    const windowBytes = Math.min(total, Math.max(2 * largest, Math.floor((total * memory) / 4096) * 4096));
    const plan = planWindow(order, windowBytes);
    const space = plan.ringBytes + total;
    const weights = backend.allocate(space + places * each);
    this.#resources.push(() => backend.release(weights));
    const source: TileSource = {
      how: 'memory',
      read: async (wanted, target, offset) => {
        await null;
        let to = offset;
        for (const tile of wanted) {
          const { offset: at, bytes } = manifest.tiles[tile]!;
          new Uint8Array(target, to, bytes).set(this.#file.subarray(at, at + bytes));
          to += bytes;
        }
      },
      stats: () => ({ reads: 0, bytes: 0, microseconds: 0, cpuMicroseconds: 0, retries: 0, recovered: 0 }),
      close: async () => undefined,
    };
    const window = new Window({
      plan,
      budget: windowBytes,
      memory: weights,
      discard: (offset, bytes) => backend.discard(weights, offset, bytes),
      source,
      now: () => 0,
    });
    await window.start();
    this.devices.push(
      new DevicePass({
        backend,
        manifest,
        tiles,
        constants: this.#pack.constants,
        weights,
        window,
        experts:
          experts === 0
            ? null
            : new ExpertCache({
                memory: weights,
                offset: space,
                bytes: places * each,
                tileBytes: each,
                source,
              }),
        kvPages: 64,
      }),
    );
  }

  /** Logits after every token of one sequence, which goes through passes of `chunk` tokens; [tokens][vocabulary]. */
  async logits(ids: readonly number[], chunk: number, length = ids.length): Promise<Float32Array[]> {
    const rows: Float32Array[] = [];
    const pages = Int32Array.from(
      { length: Math.ceil(ids.length / PAGE_POSITIONS) },
      (_, i) => (i * 5 + 3) % 64,
    );
    for (let start = 0; start < ids.length; start += chunk) {
      const tokens = ids.slice(start, start + chunk);
      rows.push(...(await this.pass([{ pages, length, start, tokens, logitsAt: [...tokens.keys()] }])));
    }
    return rows;
  }

  async embed(ids: readonly number[], target: Float32Array): Promise<void> {
    const { manifest } = this.#pack;
    const readAt = async (offset: number, bytes: Uint8Array) =>
      bytes.set(this.#file.subarray(offset, offset + bytes.length));
    const checks = await this.#pack.embeddingChecks();
    return new Embedding({ manifest, readAt, checks, crc32c, cacheBytes: 0 }).embed(ids, target);
  }

  /** One pass on all devices; copies of the logit rows. */
  async pass(sequences: readonly PassSequence[]): Promise<Float32Array[]> {
    const { manifest } = this.#pack;
    const { batch, ids } = makeBatch(sequences);
    const hub = this.devices[0]!;
    await this.embed(ids, hub.model.pass.residual);
    for (const device of this.devices) {
      device.model.pass.residual.set(hub.model.pass.residual);
      device.model.setBatch(batch);
    }
    const sums = new Sums(this.devices.length);
    await Promise.all(this.devices.map(device => runLayers(device, sums, ids.length, true)));
    const length = paddedVocabulary(manifest.shape);
    return [...batch.logitRows.keys()].map(row => {
      const logits = new Float32Array(length);
      for (const device of this.devices)
        for (const { start, count } of headColumns(manifest, device.tiles.head))
          logits.set(
            device.model.pass.logits.subarray(row * length + start, row * length + start + count),
            start,
          );
      return logits.subarray(0, manifest.shape.vocabulary);
    });
  }

  async close(): Promise<void> {
    for (const device of this.devices) await device.close();
    for (const release of this.#resources) release();
  }
}

/** Adds the partial sums of devices that all call `sum`. */
class Sums implements Allreduce {
  readonly alone: boolean;
  readonly #devices: number;
  #waiting: { partial: Int32Array; resolve: () => void }[] = [];
  #step = 0;

  constructor(devices: number) {
    this.#devices = devices;
    this.alone = devices === 1;
  }

  sum(step: number, partial: Int32Array): Promise<void> {
    if (step !== this.#step) throw new Error(`sum ${step} in step ${this.#step}`);
    return new Promise(resolve => {
      this.#waiting.push({ partial, resolve });
      if (this.#waiting.length < this.#devices) return;
      const all = this.#waiting;
      const total = new Int32Array(partial.length);
      for (const one of all) for (let i = 0; i < total.length; i++) total[i]! += one.partial[i]!;
      for (const one of all) one.partial.set(total);
      this.#waiting = [];
      this.#step++;
      for (const one of all) one.resolve();
    });
  }
}
