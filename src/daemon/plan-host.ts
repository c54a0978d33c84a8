import { open as openFile } from 'node:fs/promises';
import { createStarHub, type StarHub, type StarStats } from '../allreduce/star-hub.ts';
import { createStarSpoke, type StarSpoke } from '../allreduce/star-spoke.ts';
import { type Plan, tilesOf } from '../cluster/plan.ts';
import type { DiskAddon } from '../disk-io/disk-addon.ts';
import { createFileTileSource } from '../disk-io/file-tile-source.ts';
import { createNativeTileSource } from '../disk-io/native-tile-source.ts';
import type { TileSource } from '../disk-io/tile-source.ts';
import { DevicePass } from '../engine/device-pass.ts';
import {
  attentionTileCount,
  type DeviceTiles,
  deviceTiles,
  headColumns,
  passLimits,
} from '../engine/device-tiles.ts';
import type { PlanRunner } from '../engine/plan-runner.ts';
import { runLayers } from '../engine/run-layers.ts';
import { PotluckError } from '../errors/errors.ts';
import type { Backend } from '../kernels/backend.ts';
import { Embedding } from '../model/embedding.ts';
import { readFully } from '../pack/file-system.ts';
import { paddedVocabulary, tileBytes } from '../pack/tile-shape.ts';
import { choosePinned, leastWindowBytes } from '../window-scheduler/choose-pinned.ts';
import { ExpertCache, leastExpertBytes } from '../window-scheduler/expert-cache.ts';
import { Window } from '../window-scheduler/window.ts';
import { accountMemory, type MemoryAccount, type ProcessBytes } from './memory-account.ts';
import type { LocalModel, ModelStore } from './model-store.ts';
import { dialTensorLink, type TensorArrivals } from './tensor-links.ts';
import { TIMERS } from './timers.ts';

const LINK_MILLISECONDS = 30_000;
const EMBEDDING_CACHE_BYTES = 1 << 20;
const READ_THREADS = 2;
/** A disk that gives no tile for this long is broken. */
const READ_DEADLINE = { milliseconds: 60_000, timers: TIMERS };
const microseconds = () => TIMERS.now() * 1000;

export interface PlanHostOptions {
  readonly deviceId: string;
  readonly backend: Backend;
  readonly disk: DiskAddon | null;
  readonly store: ModelStore;
  readonly runner: PlanRunner;
  readonly arrivals: TensorArrivals;
  /** Bytes of the whole process, and of tiles alone; null: no limit. */
  readonly memory: number | null;
  readonly windowBytes: number | null;
  readonly processBytes: ProcessBytes;
  /** A device of the active plan is gone; `deviceId` is null where it cannot be told which. */
  onLost(epoch: number, deviceId: string | null, error: PotluckError): void;
}

/** What is open while a plan is active on this device. */
interface OpenPlan {
  readonly plan: Plan;
  readonly model: LocalModel;
  readonly tiles: DeviceTiles;
  readonly device: DevicePass;
  readonly account: MemoryAccount;
  readonly source: TileSource;
  readonly star: StarHub | StarSpoke | null;
  /** Hub only. */
  readonly embed: ((ids: readonly number[], target: Float32Array) => Promise<void>) | null;
  close(): Promise<void>;
}

/** Loads this device's part of a plan, connects it to the others, and takes it down again. One plan at a time. */
export class PlanHost {
  readonly #options: PlanHostOptions;
  #open: OpenPlan | null = null;

  constructor(options: PlanHostOptions) {
    this.#options = options;
  }

  get current(): OpenPlan | null {
    return this.#open;
  }

  /** Sums and bytes of the active plan; null where this device is no hub of others. */
  hubStats(): StarStats | null {
    const star = this.#open?.star;
    return star && 'stats' in star ? star.stats() : null;
  }

  /** Opens this device's part of `plan`; resolves to its KV pages. On the hub passes may run once `serve` is called. */
  async activate(plan: Plan, index: number, signal: AbortSignal): Promise<{ kvPages: number }> {
    await this.deactivate(new PotluckError('NOT_READY', `Plan ${plan.epoch} begins.`));
    const model = this.#options.store.find(plan.modelId);
    if (!model) throw new PotluckError('UNKNOWN_MODEL', `Model ${plan.modelId} is not on this device.`);
    const resources: (() => Promise<void> | void)[] = [];
    const close = async () => {
      for (const free of resources.splice(0).reverse()) await free();
    };
    try {
      const tiles = deviceTiles(model.manifest, tilesOf(plan, index));
      const part = await this.#openDevice(model, tiles, resources);
      signal.throwIfAborted();
      const star =
        index === 0
          ? await this.#openHub(plan, part.device, signal)
          : await this.#openSpoke(plan, part.device, signal);
      if (star) resources.push(() => star.close());
      const embed = index === 0 ? await openEmbedding(model, resources) : null;
      this.#open = { plan, model, tiles, ...part, star, embed, close };
      return { kvPages: part.device.kvPages };
    } catch (error) {
      await close();
      throw error;
    }
  }

  /** Hub only: lets passes run on the plan that was activated; `kvPages` of each device of the plan. */
  async serve(plan: Plan, kvPages: readonly number[]): Promise<void> {
    const open = this.#open;
    if (!open || open.plan.epoch !== plan.epoch || open.embed === null)
      throw new PotluckError('NOT_READY', `Plan ${plan.epoch} is not open on this device.`);
    this.#options.runner.begin({
      epoch: plan.epoch,
      device: open.device,
      star: open.star === null ? null : (open.star as StarHub),
      kvPages: Math.min(...kvPages),
      embed: open.embed,
    });
  }

  /** Ends the plan; resolves when nothing of it is left in memory. */
  async deactivate(reason: PotluckError): Promise<void> {
    const open = this.#open;
    this.#open = null;
    await this.#options.runner.suspend(reason);
    await open?.close();
  }

  async #openDevice(model: LocalModel, tiles: DeviceTiles, resources: (() => Promise<void> | void)[]) {
    const { backend, memory } = this.#options;
    const { manifest } = model;
    const order = tiles.order
      .filter(tile => manifest.tiles[tile]!.kind !== 'expert')
      .map(tile => ({ tile, bytes: manifest.tiles[tile]!.bytes }));
    const expertBytes = tiles.expert.flat().length * tileBytes(manifest.shape, 'expert');
    const leastExperts = leastExpertBytes(manifest.shape, expertBytes);
    const windowTotal = order.reduce((sum, { bytes }) => sum + bytes, 0);
    const { account, kvPages } = accountMemory({
      budget: memory,
      windowBytes: this.#options.windowBytes,
      shape: manifest.shape,
      attentionTiles: attentionTileCount(tiles),
      tileBytes: windowTotal + expertBytes,
      leastWindow: leastWindowBytes(order) + leastExperts,
      processBytes: this.#options.processBytes.now(),
    });
    // A tile of the window is read in every pass, one of an expert only in some: the window comes first.
    const windowBytes = Math.min(windowTotal, account.weights - leastExperts);
    const pinning = choosePinned(order, windowBytes);
    const keep = (bytes: number) => {
      const buffer = backend.allocate(Math.max(4096, bytes));
      resources.push(() => backend.release(buffer));
      return buffer;
    };
    const constants = keep(model.constants.byteLength);
    new Uint8Array(constants).set(new Uint8Array(model.constants));
    const weights = keep(account.weights);
    const source = this.#source(model);
    resources.push(() => source.close());
    const window = new Window({
      tiles: order,
      memory: weights,
      plan: pinning,
      source,
      now: microseconds,
      deadline: READ_DEADLINE,
    });
    const experts =
      expertBytes === 0
        ? null
        : new ExpertCache({
            memory: weights,
            offset: windowBytes,
            bytes: Math.min(expertBytes, account.weights - windowBytes),
            tileBytes: tileBytes(manifest.shape, 'expert'),
            source,
          });
    const device = new DevicePass({ backend, manifest, tiles, constants, weights, window, experts, kvPages });
    resources.push(() => device.close());
    await window.start();
    return { device, account, source };
  }

  #source(model: LocalModel): TileSource {
    const { disk } = this.#options;
    const locate = (tile: number) => model.locate(tile);
    return disk
      ? createNativeTileSource(disk, { threads: READ_THREADS, locate })
      : createFileTileSource({ open: path => openFile(path, 'r'), locate, now: microseconds });
  }

  async #openHub(plan: Plan, device: DevicePass, signal: AbortSignal): Promise<StarHub | null> {
    const others = plan.devices.slice(1);
    if (others.length === 0) return null;
    const streams = await this.#options.arrivals.collect(
      plan.epoch,
      others.map(d => d.id),
      LINK_MILLISECONDS,
      signal,
    );
    const { manifest } = this.#options.store.find(plan.modelId)!;
    const hub = createStarHub({
      epoch: plan.epoch,
      ...passLimitsOf(device),
      timers: TIMERS,
      spokes: others.map((d, i) => ({
        id: d.id,
        stream: streams[i]!,
        logitColumns: headColumns(manifest, deviceTiles(manifest, tilesOf(plan, i + 1)).head),
      })),
    });
    hub.onLost((id, error) => this.#options.onLost(plan.epoch, id, error));
    return hub;
  }

  async #openSpoke(plan: Plan, device: DevicePass, signal: AbortSignal): Promise<StarSpoke> {
    const hub = plan.devices[0]!;
    const stream = await dialTensorLink(hub, plan.epoch, this.#options.deviceId, LINK_MILLISECONDS, signal);
    const { manifest } = this.#options.store.find(plan.modelId)!;
    const spoke = createStarSpoke({
      epoch: plan.epoch,
      hub: hub.id,
      stream,
      ...passLimitsOf(device),
      logitColumns: headColumns(manifest, device.tiles.head),
      timers: TIMERS,
    });
    spoke.onLost(error => this.#options.onLost(plan.epoch, null, error));
    spoke.onPass(async ({ batch, residual }, allreduce) => {
      device.model.pass.residual.set(residual);
      device.model.setBatch(batch);
      await runLayers(device, allreduce, batch.positions.length, batch.logitRows.length > 0);
      return { logits: device.model.pass.logits, rowLength: paddedVocabulary(device.shape) };
    });
    return spoke;
  }
}

const passLimitsOf = (device: DevicePass) => ({
  ...passLimits(device.shape),
  width: device.shape.width,
  context: device.shape.context,
  kvPages: device.kvPages,
});

async function openEmbedding(model: LocalModel, resources: (() => Promise<void> | void)[]) {
  const path = model.packPath;
  if (path === null)
    throw new PotluckError('UNKNOWN_MODEL', 'Only a device that has the whole pack can be the hub.');
  const file = await openFile(path, 'r');
  resources.push(() => file.close());
  const embedding = new Embedding({
    manifest: model.manifest,
    cacheBytes: EMBEDDING_CACHE_BYTES,
    readAt: (offset, target) => readFully(file, path, target, offset),
  });
  return (ids: readonly number[], target: Float32Array) => embedding.embed(ids, target);
}
