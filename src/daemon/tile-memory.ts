import { constants } from 'node:buffer';
import type { TileSource } from '../disk-io/tile-source.ts';
import type { DeviceTiles } from '../engine/device-tiles.ts';
import { attentionTileCount } from '../engine/device-tiles.ts';
import type { Backend } from '../kernels/backend.ts';
import { tileBytes } from '../pack/tile-shape.ts';
import { ExpertCache, leastExpertBytes } from '../window-scheduler/expert-cache.ts';
import { leastRingBytes, leastWindowBytes, planWindow } from '../window-scheduler/plan-window.ts';
import type { WindowTile } from '../window-scheduler/tile-runs.ts';
import { Window } from '../window-scheduler/window.ts';
import { wholePages } from './memory-account.ts';
import type { MemoryKeeper, OpenMemory } from './memory-keeper.ts';
import type { LocalModel } from './model-store.ts';
import { TIMERS } from './timers.ts';

/** A disk that gives no tile for this long is broken. */
const READ_DEADLINE = { milliseconds: 60_000, timers: TIMERS };

export interface TileMemoryOptions {
  readonly backend: Backend;
  readonly keeper: MemoryKeeper;
  readonly model: LocalModel;
  readonly tiles: DeviceTiles;
  readonly source: TileSource;
  /** Of the links to other devices. */
  readonly frameBytes: number;
  readonly logitRowBytes: number;
  /** Bytes a second, as measured; null before. */
  readonly diskRate: number | null;
}

/** The memory that tiles of a plan lie in, and who moves them through it. */
export interface TileMemory {
  readonly memory: ArrayBuffer;
  readonly window: Window;
  /** Null where this device has no expert tiles. */
  readonly experts: ExpertCache | null;
  readonly kvPages: number;
  /** What the keeper is told when the model is open. */
  readonly needs: Omit<OpenMemory, 'activationBytes'>;
}

/**
 * Reserves addresses for all tiles of this device: the system gives memory only for what is written. The window comes
 * first, a cache of experts behind it. Throws MEMORY_TOO_SMALL.
 */
export function openTileMemory(options: TileMemoryOptions): TileMemory {
  const { backend, keeper, model, tiles, source, diskRate } = options;
  const { shape } = model.manifest;
  const order = tiles.order
    .filter(tile => model.manifest.tiles[tile]!.kind !== 'expert')
    .map(tile => windowTile(model, tile));
  const windowTotal = order.reduce((sum, { bytes }) => sum + bytes, 0);
  const expertTotal = tiles.expert.flat().length * tileBytes(shape, 'expert');
  const leastExperts = leastExpertBytes(shape, expertTotal);
  const needs = {
    shape,
    attentionTiles: attentionTileCount(tiles),
    tileBytes: windowTotal + expertTotal,
    leastWindow: leastWindowBytes(order) + leastExperts,
    frameBytes: options.frameBytes,
    logitRowBytes: options.logitRowBytes,
  };
  const { account, leastWeights } = keeper.plan(needs);
  // A tile of the window is read in every pass, one of an expert only in some: the window comes first. What experts have stays theirs.
  const tightest = Math.min(windowTotal, leastWeights - leastExperts);
  const expertBytes = expertTotal === 0 ? 0 : Math.min(expertTotal, leastWeights - tightest);
  const budget = Math.min(windowTotal, account.weights - expertBytes);
  const least = leastWindowBytes(order);
  const plan = planWindow(order, budget, diskRate, tightest);
  const leastWindow = Math.max(least, Math.min(windowTotal, leastRingBytes(plan))) + expertBytes;
  const { mostKvPages: kvPages } = keeper.plan({ ...needs, leastWindow });
  // As much as may ever stay; one buffer of this Node holds no more than MAX_LENGTH, and what is over streams.
  const most = Math.min(windowTotal, keeper.budget ?? windowTotal);
  const windowSpace = wholePages(Math.min(plan.ringBytes + most, constants.MAX_LENGTH - expertBytes));
  const memory = backend.allocate(Math.max(4096, windowSpace + expertBytes));
  const window = new Window({
    ...{ plan, memory, source, budget, deadline: READ_DEADLINE },
    discard: (offset, bytes) => backend.discard(memory, offset, bytes),
    now: () => TIMERS.now() * 1000,
  });
  const experts =
    expertBytes === 0
      ? null
      : new ExpertCache({
          ...{ memory, source, offset: windowSpace, bytes: expertBytes },
          tileBytes: tileBytes(shape, 'expert'),
        });
  const sized = {
    get memoryBytes() {
      return window.memoryBytes + (experts?.memoryBytes ?? 0);
    },
    highestBytes: () => window.highestBytes() + (experts?.memoryBytes ?? 0),
    resize: (bytes: number) => window.resize(bytes - expertBytes),
  };
  return { memory, window, experts, kvPages, needs: { ...needs, leastWindow, window: sized } };
}

function windowTile(model: LocalModel, tile: number): WindowTile {
  const { bytes } = model.manifest.tiles[tile]!;
  const place = model.locate(tile);
  return place ? { tile, bytes, place } : { tile, bytes };
}
