import { open as openFile } from 'node:fs/promises';
import {
  frameBytes,
  type HubFrames,
  hubFrames,
  type SpokeFrames,
  type StarRole,
  spokeFrames,
} from '../allreduce/frame-memory.ts';
import { type LogitColumns, logitColumnCount } from '../allreduce/logit-columns.ts';
import { createStarHub, type StarHub, type StarStats } from '../allreduce/star-hub.ts';
import { createStarSpoke, type StarSpoke } from '../allreduce/star-spoke.ts';
import { type Plan, tilesOf } from '../cluster/plan.ts';
import { crc32c } from '../disk-io/crc32c.ts';
import type { DiskAddon } from '../disk-io/disk-addon.ts';
import { createFileTileSource } from '../disk-io/file-tile-source.ts';
import { createNativeTileSource } from '../disk-io/native-tile-source.ts';
import { openPageCache } from '../disk-io/page-cache.ts';
import type { TileSource } from '../disk-io/tile-source.ts';
import { DevicePass } from '../engine/device-pass.ts';
import { type DeviceTiles, deviceTiles, headColumns, passLimits } from '../engine/device-tiles.ts';
import type { PlanRunner } from '../engine/plan-runner.ts';
import { runLayers } from '../engine/run-layers.ts';
import { PotluckError } from '../errors/errors.ts';
import type { Backend } from '../kernels/backend.ts';
import { Embedding, type RowFault } from '../model/embedding.ts';
import { readFully } from '../pack/file-system.ts';
import type { Manifest } from '../pack/manifest.ts';
import { paddedVocabulary } from '../pack/tile-shape.ts';
import { type Close, closeAfter, closeAll } from './close-all.ts';
import type { MemoryKeeper } from './memory-keeper.ts';
import type { LocalModel, ModelStore } from './model-store.ts';
import { receivedBytes } from './small-heap.ts';
import { dialTensorLink, type TensorArrivals } from './tensor-links.ts';
import { openTileMemory } from './tile-memory.ts';
import { TIMERS } from './timers.ts';

const LINK_MILLISECONDS = 30_000;
const EMBEDDING_CACHE_BYTES = 1 << 20;
/** The disk is busy while one of them checks what it read. */
const READ_THREADS = 3;
/** Fewer bytes tell nothing about a disk. */
const LEAST_MEASURED_BYTES = 64 << 20;
const microseconds = () => TIMERS.now() * 1000;

export interface PlanHostOptions {
  readonly deviceId: string;
  readonly backend: Backend;
  readonly disk: DiskAddon | null;
  readonly store: ModelStore;
  readonly runner: PlanRunner;
  readonly arrivals: TensorArrivals;
  readonly keeper: MemoryKeeper;
  /** Gets a tile whose bytes here are lost or wrong from another device. Rejects where none has it. */
  recover(model: LocalModel, tile: number, signal: AbortSignal): Promise<void>;
  /** The same for an embedding row, whose bytes it resolves to. */
  recoverRow(model: LocalModel, row: number, fault: RowFault): Promise<Uint8Array>;
  /** A device of the active plan is gone; `deviceId` is null where it cannot be told which. */
  onLost(epoch: number, deviceId: string | null, error: PotluckError): void;
}

/** What is open while a plan is active on this device. */
export interface OpenPlan {
  readonly plan: Plan;
  readonly model: LocalModel;
  readonly tiles: DeviceTiles;
  readonly device: DevicePass;
  readonly source: TileSource;
  readonly star: StarHub | StarSpoke | null;
  /** Hub only. */
  readonly embed: ((ids: readonly number[], target: Float32Array) => Promise<void>) | null;
  close(): Promise<void>;
}

/** This device's part of a plan, before it is connected to the others. */
interface OpenDevice {
  readonly device: DevicePass;
  readonly source: TileSource;
  /** Of each link, see linkColumns. */
  readonly columns: readonly (readonly LogitColumns[])[];
  readonly frames: { readonly hub: HubFrames | null; readonly spoke: SpokeFrames | null };
}

/** Loads this device's part of a plan, connects it to the others, and takes it down again. One plan at a time. */
export class PlanHost {
  readonly #options: PlanHostOptions;
  #open: OpenPlan | null = null;
  /** Bytes a second, once that was measured. */
  #diskRate: number | null = null;

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
    const resources: Close[] = [];
    try {
      const own = tilesOf(plan, index);
      this.#options.store.use(model, own);
      const tiles = deviceTiles(model.manifest, own);
      const role = plan.devices.length === 1 ? 'alone' : index === 0 ? 'hub' : 'spoke';
      const columns = linkColumns(model.manifest, plan, index);
      const part = await this.#openDevice(model, tiles, role, columns, resources);
      signal.throwIfAborted();
      const star =
        role === 'alone'
          ? null
          : role === 'hub'
            ? await this.#openHub(plan, part, signal)
            : await this.#openSpoke(plan, part, signal);
      if (star) resources.push(() => star.close());
      const embed = index === 0 ? await openEmbedding(model, this.#options, resources) : null;
      const { device, source } = part;
      this.#open = { plan, model, tiles, device, source, star, embed, close: () => closeAll(resources) };
      return { kvPages: part.device.kvPages };
    } catch (error) {
      return closeAfter(error, resources);
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
    try {
      await this.#options.runner.suspend(reason);
    } finally {
      await open?.close();
    }
  }

  async #openDevice(
    model: LocalModel,
    tiles: DeviceTiles,
    role: StarRole,
    columns: readonly (readonly LogitColumns[])[],
    resources: Close[],
  ): Promise<OpenDevice> {
    const { backend, keeper } = this.#options;
    const { manifest } = model;
    const rowLengths = columns.map(logitColumnCount);
    const limits = { ...passLimits(manifest.shape), width: manifest.shape.width };
    const constants = backend.allocate(model.constants.byteLength);
    resources.push(() => backend.release(constants));
    new Uint8Array(constants).set(new Uint8Array(model.constants));
    const closing = new AbortController();
    const source = this.#source(model, closing.signal);
    const { memory, window, experts, kvPages, needs } = openTileMemory({
      ...{ backend, keeper, model, tiles, source, diskRate: this.#diskRate },
      frameBytes: frameBytes(limits, role),
      logitRowBytes: rowLengths.reduce((sum, count) => sum + count * 4, 0),
    });
    resources.push(() => backend.release(memory));
    resources.push(() => source.close());
    const device = new DevicePass({
      ...{ backend, manifest, tiles, constants, weights: memory, window, experts, kvPages },
      onPass: (pages, logitRows) => keeper.beginPass(pages, logitRows),
    });
    resources.push(() => device.close());
    resources.push(() => closing.abort(new PotluckError('STOPPED', 'The plan ends.')));
    resources.push(() => keeper.close());
    const hub = role === 'hub' ? hubFrames(limits, rowLengths) : null;
    const spoke = role === 'spoke' ? spokeFrames(limits, rowLengths[0]!) : null;
    keeper.open({ ...needs, activationBytes: device.model.activationBytes });
    await window.start();
    keeper.loaded();
    resources.push(() => this.#measureDisk(source));
    return { device, source, columns, frames: { hub, spoke } };
  }

  #source(model: LocalModel, signal: AbortSignal): TileSource {
    const { disk, recover } = this.#options;
    const options = {
      locate: (tile: number) => model.locate(tile),
      recover: (tile: number) => recover(model, tile, signal),
    };
    return disk
      ? createNativeTileSource(disk, { threads: READ_THREADS, ...options })
      : createFileTileSource({ open: path => openFile(path, 'r'), now: microseconds, ...options });
  }

  /** The rate that reads of this plan had is what the next one is planned with. */
  #measureDisk(source: TileSource): void {
    const { bytes, microseconds: time } = source.stats();
    if (bytes >= LEAST_MEASURED_BYTES && time > 0) this.#diskRate = (bytes / time) * 1e6 * READ_THREADS;
  }

  async #openHub(plan: Plan, { device, columns, frames }: OpenDevice, signal: AbortSignal): Promise<StarHub> {
    const others = plan.devices.slice(1);
    const streams = await this.#options.arrivals.collect(
      plan.epoch,
      others.map(d => d.id),
      LINK_MILLISECONDS,
      signal,
    );
    const hub = createStarHub({
      epoch: plan.epoch,
      ...passLimitsOf(device),
      timers: TIMERS,
      frames: frames.hub!,
      onReceived: receivedBytes(),
      spokes: others.map((d, i) => ({
        id: d.id,
        stream: streams[i]!,
        logitColumns: columns[i]!,
      })),
    });
    hub.onLost((id, error) => this.#options.onLost(plan.epoch, id, error));
    return hub;
  }

  async #openSpoke(
    plan: Plan,
    { device, columns, frames }: OpenDevice,
    signal: AbortSignal,
  ): Promise<StarSpoke> {
    const hub = plan.devices[0]!;
    const stream = await dialTensorLink(hub, plan.epoch, this.#options.deviceId, LINK_MILLISECONDS, signal);
    const spoke = createStarSpoke({
      epoch: plan.epoch,
      hub: hub.id,
      stream,
      ...passLimitsOf(device),
      logitColumns: columns[0]!,
      timers: TIMERS,
      frames: frames.spoke!,
      onReceived: receivedBytes(),
    });
    spoke.onLost(error => this.#options.onLost(plan.epoch, null, error));
    spoke.onPass(async ({ batch, residual }, allreduce) => {
      device.model.pass.residual.set(residual);
      device.begin(batch);
      await runLayers(device, allreduce, batch.positions.length, batch.logitRows.length > 0);
      return { logits: device.model.pass.logits, rowLength: paddedVocabulary(device.shape) };
    });
    return spoke;
  }
}

/** The logits that go over each link of device `index` of a plan: on the hub of every spoke, on a spoke its own. */
function linkColumns(manifest: Manifest, plan: Plan, index: number): LogitColumns[][] {
  const spokes = index > 0 ? [index] : plan.devices.map((_, i) => i).slice(1);
  return spokes.map(i => headColumns(manifest, deviceTiles(manifest, tilesOf(plan, i)).head));
}

const passLimitsOf = (device: DevicePass) => ({
  ...passLimits(device.shape),
  width: device.shape.width,
  context: device.shape.context,
  kvPages: device.kvPages,
});

async function openEmbedding(
  model: LocalModel,
  { disk, recoverRow }: Pick<PlanHostOptions, 'disk' | 'recoverRow'>,
  resources: Close[],
) {
  if (model.whole === null)
    throw new PotluckError('UNKNOWN_MODEL', 'Only a device that has the whole pack can be the hub.');
  const { path } = model.whole;
  const file = await openFile(path, 'r');
  resources.push(() => file.close());
  const cached = disk && openPageCache(disk, path);
  if (cached) resources.push(() => cached.close());
  const embedding = new Embedding({
    manifest: model.manifest,
    cacheBytes: EMBEDDING_CACHE_BYTES,
    readAt: (offset, target) => readFully(file, path, target, offset),
    checks: await model.whole.embeddingChecks(),
    crc32c: bytes => (disk ? disk.crc32c(bytes) : crc32c(bytes)),
    recover: (id, fault) => recoverRow(model, id, fault),
    ...(cached && { readCached: cached.read }),
  });
  return (ids: readonly number[], target: Float32Array) => embedding.embed(ids, target);
}
