import { PotluckError } from '../errors/errors.ts';
import type { TileKind } from '../pack/manifest.ts';
import { MAX_EPOCH } from './device.ts';
import { MAX_PLAN_DEVICES, MAX_PLAN_TILES, type Plan, type PlanDevice, type PlannedTile } from './plan.ts';

export interface PlanCandidate extends PlanDevice {
  /** Relative speed, > 0. */
  readonly share: number;
  /** Bytes for weights. */
  readonly memoryBytes: number;
}

export interface PlanInput {
  readonly epoch: number;
  readonly modelId: string;
  /** All tiles of the manifest, in execution order. */
  readonly tiles: readonly PlannedTile[];
  /** The hub first. */
  readonly devices: readonly PlanCandidate[];
  /** The plan before this one: tiles stay where they are as far as balance allows. */
  readonly previous?: Plan | null;
}

/** A window that streams has one tile in use and one on its way. */
const LEAST_WINDOW_TILES = 2;
/** Rounding can give a device up to one and a half tiles more than its part, in each of the three kinds. */
const ROUNDING_TILES = 5;
/** In tiles: how far balance may be off so that a tile can stay where it is. */
const STAY_BONUS = 0.5;

/**
 * Gives every tile to one device. Each half layer is spread in proportion to the devices' parts (see `deviceParts`); what whole
 * tiles cannot give is carried to the next half layer of the same kind, so that sums even out. Pure: the same input gives
 * the same plan. Throws MEMORY_TOO_SMALL where no device can hold a window, NOT_READY where plan numbers are used up.
 */
export function makePlan(input: PlanInput): Plan {
  const { epoch, modelId, tiles, devices, previous } = input;
  checkInput(input);
  const parts = deviceParts(tiles, devices);
  const before = previousHolders(input, previous ?? null);
  // ties go by id, not by place: a new hub then does not move tiles
  const order = devices.map((_, index) => index).sort((a, b) => (devices[a]!.id < devices[b]!.id ? -1 : 1));
  const carried = new Map<TileKind, number[]>();
  const assignment = new Array<number>(tiles.length).fill(0);
  for (const group of halfLayers(tiles)) {
    const kind = tiles[group[0]!]!.kind;
    const owed = carried.get(kind) ?? devices.map(() => 0);
    carried.set(kind, owed);
    for (const [device, part] of parts.entries()) owed[device]! += part * group.length;
    const counts = shareOut(group, owed, parts, before, order);
    for (const [device, n] of counts.entries()) owed[device]! -= n;
    placeTiles(group, counts, before, order, assignment);
  }
  return {
    epoch,
    modelId,
    hubId: devices[0]!.id,
    devices: devices.map(({ id, name, host, linkPort }) => ({ id, name, host, linkPort })),
    assignment,
  };
}

function checkInput({ epoch, tiles, devices }: PlanInput): void {
  if (epoch > MAX_EPOCH) {
    throw new PotluckError(
      'NOT_READY',
      `A device of the cluster knows plan ${epoch - 1}, and no number is higher. Stop all devices, then start them again.`,
    );
  }
  const ok = devices.length >= 1 && devices.length <= MAX_PLAN_DEVICES && tiles.length <= MAX_PLAN_TILES;
  if (!ok || devices.some(d => !(d.share > 0 && Number.isFinite(d.share)))) {
    throw new PotluckError(
      'INTERNAL',
      `No plan can be made of ${devices.length} devices and ${tiles.length} tiles.`,
    );
  }
}

/**
 * The part of the model that each device gets; parts add up to 1. In proportion to the shares, but: a device that cannot
 * hold the smallest window gets nothing, and while memory lasts no device gets more than it can keep in memory (a tile
 * that streams costs far more than one that stays). Where all memory together is too small, the rest goes by shares.
 */
export function deviceParts(tiles: readonly PlannedTile[], devices: readonly PlanCandidate[]): number[] {
  const largest = tiles.reduce((most, tile) => Math.max(most, tile.bytes), 0);
  const total = tiles.reduce((sum, tile) => sum + tile.bytes, 0);
  const usable = devices.map(d => d.memoryBytes >= LEAST_WINDOW_TILES * largest);
  if (!usable.includes(true)) {
    throw new PotluckError(
      'MEMORY_TOO_SMALL',
      `No device has memory for ${LEAST_WINDOW_TILES} tiles of ${largest} bytes. Give one a larger --memory, or --window.`,
    );
  }
  const shares = devices.map((d, i) => (usable[i] ? d.share : 0));
  const limits = devices.map((d, i) =>
    usable[i] && total > 0 ? Math.max(0, d.memoryBytes - ROUNDING_TILES * largest) / total : 0,
  );
  const room = limits.reduce((sum, limit) => sum + limit, 0);
  if (room >= 1) return fillBelow(shares, limits);
  const sum = shares.reduce((a, b) => a + b, 0);
  return limits.map((limit, i) => limit + ((1 - room) * shares[i]!) / sum);
}

/** Parts in proportion to `shares`, none above its limit; the limits add up to at least 1. */
function fillBelow(shares: readonly number[], limits: readonly number[]): number[] {
  const parts = shares.map(() => 0);
  const full = shares.map(share => share === 0);
  let left = 1;
  // each turn fills at least one device to its limit, or is the last
  for (let turn = 0; turn <= shares.length; turn++) {
    const sum = shares.reduce((a, share, i) => (full[i] ? a : a + share), 0);
    if (sum === 0) break;
    const over = shares.map((share, i) => !full[i] && (left * share) / sum > limits[i]!);
    if (!over.includes(true)) {
      for (const [i, share] of shares.entries()) if (!full[i]) parts[i] = (left * share) / sum;
      break;
    }
    for (const [i, isOver] of over.entries()) {
      if (!isOver) continue;
      parts[i] = limits[i]!;
      full[i] = true;
      left -= limits[i]!;
    }
  }
  return parts;
}

/** Device index that held each tile before, or -1. */
function previousHolders({ tiles, devices, modelId }: PlanInput, previous: Plan | null): number[] {
  if (previous === null || previous.modelId !== modelId || previous.assignment.length !== tiles.length) {
    return tiles.map(() => -1);
  }
  const now = previous.devices.map(old => devices.findIndex(d => d.id === old.id));
  return previous.assignment.map(device => now[device]!);
}

/** Tile indices of each half layer and of the head, in execution order. */
function* halfLayers(tiles: readonly PlannedTile[]): Generator<number[]> {
  let group: number[] = [];
  for (const [index, tile] of tiles.entries()) {
    const last = group.length > 0 ? tiles[group[0]!]! : tile;
    if (tile.kind !== last.kind || tile.layer !== last.layer) {
      yield group;
      group = [];
    }
    group.push(index);
  }
  if (group.length > 0) yield group;
}

/** Tiles of `group` for each device: one after another to the device that is owed most. */
function shareOut(
  group: readonly number[],
  owed: readonly number[],
  parts: readonly number[],
  before: readonly number[],
  order: readonly number[],
): number[] {
  const counts = owed.map(() => 0);
  const held = owed.map(() => 0);
  for (const tile of group) if (before[tile]! >= 0) held[before[tile]!]! += 1;
  const wants = (device: number): number =>
    parts[device] === 0
      ? Number.NEGATIVE_INFINITY
      : owed[device]! - counts[device]! + (counts[device]! < held[device]! ? STAY_BONUS : 0);
  for (let given = 0; given < group.length; given++) {
    // a margin, so that rounding of sums does not decide between equals
    const best = order.reduce((a, b) => (wants(b) > wants(a) + 1e-9 ? b : a));
    counts[best]! += 1;
  }
  return counts;
}

/** Writes the devices of `group` into `assignment`: what a device held it keeps, up to its count. */
function placeTiles(
  group: readonly number[],
  counts: readonly number[],
  before: readonly number[],
  order: readonly number[],
  assignment: number[],
): void {
  const left = [...counts];
  const free: number[] = [];
  for (const tile of group) {
    const holder = before[tile]!;
    if (holder >= 0 && left[holder]! > 0) {
      left[holder]! -= 1;
      assignment[tile] = holder;
    } else {
      free.push(tile);
    }
  }
  let next = 0;
  for (const device of order) {
    for (; left[device]! > 0; left[device]! -= 1) assignment[free[next++]!] = device;
  }
}
