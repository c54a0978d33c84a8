import { placeInRing, type RingSpace } from './ring.ts';
import type { WindowLayout } from './window-layout.ts';

/**
 * What is read when, and where to: a pure state machine, (state, event) -> (state, actions).
 *
 * Pinned tiles are read once. Streamed tiles go through the ring in execution order, again and again: each gets bytes
 * of the ring before it is read, and gives them back when it was computed and all before it were.
 */

export type LoadStatus = 'waiting' | 'reading' | 'ready' | 'failed';

/**
 * reading: under way. ready: in memory. taken: handed out, until its release. failed: keeps its bytes until it is
 * wanted again; retry: wanted again, not yet under way. dropped: under way but not wanted. free: bytes to be given back.
 */
export type SlotStatus = 'reading' | 'ready' | 'taken' | 'failed' | 'retry' | 'dropped' | 'free';

/** Bytes of the ring that belong to one tile. */
export interface Slot extends RingSpace {
  /** Place among the streamed tiles. */
  readonly place: number;
  readonly status: SlotStatus;
}

export interface WindowState {
  readonly layout: WindowLayout;
  readonly phase: 'new' | 'running' | 'stopped';
  /** Of each pinned tile. */
  readonly loads: readonly LoadStatus[];
  /** First pinned tile that may be waiting. */
  readonly nextLoad: number;
  /** Oldest first. */
  readonly slots: readonly Slot[];
  /** Place of the streamed tile to read next. */
  readonly next: number;
  /** Places that reading passes over once. */
  readonly skipped: ReadonlySet<number>;
  /** Reads under way. */
  readonly reading: number;
}

export type WindowEvent =
  /** Begin; or, after failed loads of pinned tiles, try them again. */
  | { readonly type: 'start' }
  /** A read ended well. */
  | { readonly type: 'readDone'; readonly tile: number }
  | { readonly type: 'readFailed'; readonly tile: number; readonly error: unknown }
  /** The tile is the next one that compute needs. Streamed tiles before it that nobody took are given up. */
  | { readonly type: 'want'; readonly tile: number }
  /** A ready tile is handed out. */
  | { readonly type: 'take'; readonly tile: number }
  /** Compute is done with a taken tile. */
  | { readonly type: 'release'; readonly tile: number }
  /** This pass does not use the tile. */
  | { readonly type: 'skip'; readonly tile: number }
  /** No more reads. */
  | { readonly type: 'abort' };

export type WindowAction =
  /** Read the tile to this offset of the weights memory. */
  | { readonly type: 'read'; readonly tile: number; readonly offset: number }
  | { readonly type: 'ready'; readonly tile: number; readonly offset: number }
  | { readonly type: 'fail'; readonly tile: number; readonly error: unknown };

export interface WindowStep {
  readonly state: WindowState;
  readonly actions: readonly WindowAction[];
}

export function newWindowState(layout: WindowLayout): WindowState {
  return {
    layout,
    phase: 'new',
    loads: layout.pinned.map(() => 'waiting'),
    nextLoad: 0,
    slots: [],
    next: 0,
    skipped: new Set(),
    reading: 0,
  };
}

/** The next state, and what to do. Events about tiles that are not in the state they speak of change nothing. */
export function stepWindow(state: WindowState, event: WindowEvent): WindowStep {
  switch (event.type) {
    case 'start':
      return state.phase === 'stopped' ? same(state) : fill({ ...retryLoads(state), phase: 'running' });
    case 'readDone':
      return readEnded(state, event.tile, true, offset => ({ type: 'ready', tile: event.tile, offset }));
    case 'readFailed':
      return readEnded(state, event.tile, false, () => ({
        type: 'fail',
        tile: event.tile,
        error: event.error,
      }));
    case 'want':
      return fill(want(state, event.tile));
    case 'take':
      return same(changeSlot(state, event.tile, ['ready'], 'taken'));
    case 'release':
      return fill(changeSlot(state, event.tile, ['taken'], 'free'));
    case 'skip':
      return fill(skip(state, event.tile));
    case 'abort':
      return same({ ...state, phase: 'stopped' });
  }
}

/** Where a streamed tile lies in the weights memory, if it is ready to be taken. */
export function readyOffset(state: WindowState, tile: number): number | undefined {
  const slot = state.slots[findSlot(state, tile, ['ready'])];
  return slot && state.layout.ringOffset + slot.offset;
}

/** True where a streamed tile is handed out and not released. */
export const isTaken = (state: WindowState, tile: number): boolean => findSlot(state, tile, ['taken']) >= 0;

const same = (state: WindowState): WindowStep => ({ state, actions: [] });

/** Index of the slot of a streamed tile in one of these states, or -1. At most one slot of a tile is not 'free'. */
function findSlot(state: WindowState, tile: number, statuses: readonly SlotStatus[]): number {
  const place = state.layout.streamedPlaces.get(tile);
  return state.slots.findIndex(slot => slot.place === place && statuses.includes(slot.status));
}

function changeSlot(
  state: WindowState,
  tile: number,
  from: readonly SlotStatus[],
  to: SlotStatus,
): WindowState {
  const index = findSlot(state, tile, from);
  const slot = state.slots[index];
  return slot ? { ...state, slots: state.slots.with(index, { ...slot, status: to }) } : state;
}

function changeLoad(state: WindowState, place: number, to: LoadStatus): WindowState {
  const nextLoad = to === 'waiting' ? Math.min(state.nextLoad, place) : state.nextLoad;
  return { ...state, loads: state.loads.with(place, to), nextLoad };
}

function retryLoads(state: WindowState): WindowState {
  const loads = state.loads.map(load => (load === 'failed' ? 'waiting' : load));
  return { ...state, loads, nextLoad: 0 };
}

/** A read under way ended; `tell` makes the action for whoever wants the tile. */
function readEnded(
  before: WindowState,
  tile: number,
  well: boolean,
  tell: (offset: number) => WindowAction,
): WindowStep {
  const { layout } = before;
  const state = { ...before, reading: before.reading - 1 };
  const pinned = layout.pinnedPlaces.get(tile);
  if (pinned !== undefined) {
    if (state.loads[pinned] !== 'reading') return same(before);
    const loaded = changeLoad(state, pinned, well ? 'ready' : 'failed');
    return fill(loaded, [tell(layout.pinned[pinned]!.offset)]);
  }
  const index = findSlot(state, tile, ['reading', 'dropped']);
  const slot = state.slots[index];
  if (!slot) return same(before);
  if (slot.status === 'dropped') return fill(changeSlot(state, tile, ['dropped'], 'free'));
  const ended = changeSlot(state, tile, ['reading'], well ? 'ready' : 'failed');
  return fill(ended, [tell(layout.ringOffset + slot.offset)]);
}

/** What becomes of a slot that nobody needs any more. */
const given: Readonly<Record<SlotStatus, SlotStatus>> = {
  reading: 'dropped',
  ready: 'free',
  taken: 'taken',
  failed: 'free',
  retry: 'free',
  dropped: 'dropped',
  free: 'free',
};

function giveUp(slot: Slot): Slot {
  const status = given[slot.status];
  return status === slot.status ? slot : { ...slot, status };
}

function want(state: WindowState, tile: number): WindowState {
  const pinned = state.layout.pinnedPlaces.get(tile);
  if (pinned !== undefined) {
    return state.loads[pinned] === 'failed' ? changeLoad(state, pinned, 'waiting') : state;
  }
  const place = state.layout.streamedPlaces.get(tile);
  if (place === undefined) return state;
  const index = findSlot(state, tile, ['reading', 'ready', 'taken', 'failed', 'retry']);
  if (index < 0) {
    const skipped = new Set(state.skipped);
    skipped.delete(place);
    return { ...state, slots: state.slots.map(giveUp), next: place, skipped };
  }
  const slots = state.slots.map((slot, i) => (i < index ? giveUp(slot) : slot));
  return changeSlot({ ...state, slots }, tile, ['failed'], 'retry');
}

function skip(state: WindowState, tile: number): WindowState {
  const place = state.layout.streamedPlaces.get(tile);
  if (place === undefined) return state;
  const index = findSlot(state, tile, ['reading', 'ready', 'taken', 'failed', 'retry']);
  const slot = state.slots[index];
  if (!slot) return { ...state, skipped: new Set(state.skipped).add(place) };
  return { ...state, slots: state.slots.with(index, giveUp(slot)) };
}

/** Gives bytes back and starts as many reads as there are bytes and reads allowed for. */
function fill(before: WindowState, first: readonly WindowAction[] = []): WindowStep {
  const actions = [...first];
  let state = reclaim(before);
  while (state.phase === 'running' && state.reading < state.layout.readDepth) {
    const step = retryRead(state) ?? loadRead(state) ?? aheadRead(state);
    if (!step) break;
    state = { ...step.state, reading: state.reading + 1 };
    actions.push(...step.actions);
  }
  return { state, actions };
}

/** Bytes are given back in the order they were given out. */
function reclaim(state: WindowState): WindowState {
  let free = 0;
  while (state.slots[free]?.status === 'free') free++;
  return free === 0 ? state : { ...state, slots: state.slots.slice(free) };
}

function retryRead(state: WindowState): WindowStep | undefined {
  const slot = state.slots.find(({ status }) => status === 'retry');
  if (!slot) return undefined;
  const { tile } = state.layout.streamed[slot.place]!;
  return {
    state: changeSlot(state, tile, ['retry'], 'reading'),
    actions: [{ type: 'read', tile, offset: state.layout.ringOffset + slot.offset }],
  };
}

function loadRead(state: WindowState): WindowStep | undefined {
  let place = state.nextLoad;
  while (place < state.loads.length && state.loads[place] !== 'waiting') place++;
  const pinned = state.layout.pinned[place];
  if (!pinned) return undefined;
  return {
    state: { ...changeLoad(state, place, 'reading'), nextLoad: place + 1 },
    actions: [{ type: 'read', tile: pinned.tile, offset: pinned.offset }],
  };
}

/** The next streamed tile, if the ring has room and does not hold it already. */
function aheadRead(before: WindowState): WindowStep | undefined {
  const { layout } = before;
  if (layout.streamed.length === 0) return undefined;
  const state = passSkipped(before);
  const { tile, bytes } = layout.streamed[state.next]!;
  if (state.slots.some(slot => slot.place === state.next && slot.status !== 'free')) return undefined;
  const offset = placeInRing(state.slots, bytes, layout.ringBytes);
  if (offset === undefined) return undefined;
  const slot: Slot = { place: state.next, offset, bytes, status: 'reading' };
  return {
    state: { ...state, slots: [...state.slots, slot], next: (state.next + 1) % layout.streamed.length },
    actions: [{ type: 'read', tile, offset: layout.ringOffset + offset }],
  };
}

function passSkipped(state: WindowState): WindowState {
  if (!state.skipped.has(state.next)) return state;
  const skipped = new Set(state.skipped);
  let next = state.next;
  while (skipped.delete(next)) next = (next + 1) % state.layout.streamed.length;
  return { ...state, next, skipped };
}
