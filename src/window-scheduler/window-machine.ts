import { placeInRing } from './ring.ts';
import { giveUp, type Slot, slotOf, withoutTile } from './ring-slot.ts';
import type { WindowLayout } from './window-layout.ts';

/**
 * What is read when, and where to: a pure state machine, (state, event) -> (state, actions).
 *
 * Pinned runs are read once, to their homes. All others go through the ring in execution order, again and again: each
 * gets bytes of the ring before it is read, and gives them back when its tiles were computed and all before it were.
 */

/** none: not pinned. leaving: under way, but no longer pinned. */
export type LoadStatus = 'none' | 'waiting' | 'reading' | 'ready' | 'failed' | 'leaving';

export interface WindowState {
  readonly layout: WindowLayout;
  readonly phase: 'new' | 'running' | 'stopped';
  /** How many runs of the pin order are pinned. */
  readonly pinned: number;
  /** Of each run at its home; [runs]. */
  readonly loads: readonly LoadStatus[];
  /** First run that may be waiting to be loaded. */
  readonly nextLoad: number;
  /** The ring now: the first bytes of the layout's. */
  readonly ringBytes: number;
  /** Oldest first. */
  readonly slots: readonly Slot[];
  /** Run to look at next when reading ahead. */
  readonly next: number;
  /** Tiles that reading passes over once. */
  readonly skipped: ReadonlySet<number>;
  /** Reads under way. */
  readonly reading: number;
}

export type WindowEvent =
  /** Begin; or, after failed loads of pinned runs, try them again. */
  | { readonly type: 'start' }
  /** The first `count` runs of the pin order stay in memory from now on. No pinned tile is in use. */
  | { readonly type: 'pin'; readonly count: number }
  /** The ring has so many bytes from now on; what lies behind them, and all that comes later, is read again. No tile is in use. */
  | { readonly type: 'ring'; readonly bytes: number }
  /** A read ended well. */
  | { readonly type: 'readDone'; readonly run: number; readonly to: 'home' | 'ring' }
  | {
      readonly type: 'readFailed';
      readonly run: number;
      readonly to: 'home' | 'ring';
      readonly error: unknown;
    }
  /** The tile is the next one that compute needs. Runs before it that nobody took are given up. */
  | { readonly type: 'want'; readonly tile: number }
  /** A tile in the ring is handed out. */
  | { readonly type: 'take'; readonly tile: number }
  /** Compute is done with a taken tile. */
  | { readonly type: 'release'; readonly tile: number }
  /** This pass does not use the tile. */
  | { readonly type: 'skip'; readonly tile: number }
  /** No more reads. */
  | { readonly type: 'abort' };

export type WindowAction =
  /** Read the run to this offset of the weights memory. */
  | { readonly type: 'read'; readonly run: number; readonly to: 'home' | 'ring'; readonly offset: number }
  | { readonly type: 'ready'; readonly run: number; readonly to: 'home' | 'ring' }
  /** The home of the run is not needed any more: its memory may be given back. */
  | { readonly type: 'discard'; readonly run: number }
  | { readonly type: 'fail'; readonly run: number; readonly to: 'home' | 'ring'; readonly error: unknown };

export interface WindowStep {
  readonly state: WindowState;
  readonly actions: readonly WindowAction[];
}

export function newWindowState(layout: WindowLayout): WindowState {
  return {
    layout,
    phase: 'new',
    pinned: 0,
    loads: layout.runs.map(() => 'none'),
    nextLoad: 0,
    ringBytes: layout.ringBytes,
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
    case 'pin':
      return fill(pin(state, event.count), leavers(state, event.count));
    case 'ring':
      return fill(resizeRing(state, event.bytes));
    case 'readDone':
      return event.to === 'home' ? loadEnded(state, event.run, null) : slotEnded(state, event.run, null);
    case 'readFailed':
      return event.to === 'home' ? loadEnded(state, event.run, event) : slotEnded(state, event.run, event);
    case 'want':
      return fill(want(state, event.tile));
    case 'take':
      return same(changeSlot(state, event.tile, slot => take(slot, event.tile)));
    case 'release':
      return fill(changeSlot(state, event.tile, slot => release(slot, event.tile)));
    case 'skip':
      return fill(skip(state, event.tile));
    case 'abort':
      return same({ ...state, phase: 'stopped' });
  }
}

/** Where a tile lies in the weights memory, if it may be taken now; a pinned one stays there. */
export function readyOffset(
  state: WindowState,
  tile: number,
): { readonly offset: number; readonly pinned: boolean } | undefined {
  const place = state.layout.places.get(tile);
  if (!place) return undefined;
  if (state.loads[place.run] === 'ready')
    return { offset: state.layout.homes[place.run]! + place.offset, pinned: true };
  const slot = slotOf(state.slots, place.run, tile);
  if (slot?.status !== 'ready' || !slot.open.includes(tile)) return undefined;
  return { offset: slot.offset + place.offset, pinned: false };
}

/** True where a tile in the ring is handed out and not released. */
export const isTaken = (state: WindowState, tile: number): boolean =>
  state.slots.some(({ held }) => held.includes(tile));

/** Byte offset behind the ring and all that lies in it and is not free. */
export const ringEnd = ({ slots, ringBytes }: WindowState): number =>
  slots.reduce(
    (end, { offset, bytes, status }) => (status === 'free' ? end : Math.max(end, offset + bytes)),
    ringBytes,
  );

/** Bytes of the ring whose tiles are handed out. */
export const heldBytes = (state: WindowState): number =>
  state.slots.reduce((sum, slot) => (slot.held.length > 0 ? sum + slot.bytes : sum), 0);

const same = (state: WindowState): WindowStep => ({ state, actions: [] });

function changeSlot(state: WindowState, tile: number, change: (slot: Slot) => Slot): WindowState {
  const place = state.layout.places.get(tile);
  const slot = place && slotOf(state.slots, place.run, tile);
  return slot ? { ...state, slots: state.slots.map(each => (each === slot ? change(slot) : each)) } : state;
}

function take(slot: Slot, tile: number): Slot {
  if (slot.status !== 'ready' || !slot.open.includes(tile)) return slot;
  return { ...slot, open: slot.open.filter(other => other !== tile), held: [...slot.held, tile] };
}

function release(slot: Slot, tile: number): Slot {
  return slot.held.includes(tile) ? withoutTile(slot, tile) : slot;
}

// --- pinned runs ---

function changeLoad(state: WindowState, run: number, to: LoadStatus): WindowState {
  const nextLoad = to === 'waiting' ? Math.min(state.nextLoad, run) : state.nextLoad;
  return { ...state, loads: state.loads.with(run, to), nextLoad };
}

function retryLoads(state: WindowState): WindowState {
  const loads = state.loads.map(load => (load === 'failed' ? 'waiting' : load));
  return { ...state, loads, nextLoad: 0 };
}

function pin(state: WindowState, count: number): WindowState {
  const { pinPlaces } = state.layout;
  const loads = state.loads.map((load, run): LoadStatus => {
    const stays = pinPlaces[run]! < count;
    if (stays) return load === 'none' ? 'waiting' : load === 'leaving' ? 'reading' : load;
    return load === 'reading' || load === 'leaving' ? 'leaving' : 'none';
  });
  // What is in the ring of runs that are pinned now is not needed there.
  const slots = state.slots.map(slot => (pinPlaces[slot.run]! < count ? giveUp(slot) : slot));
  return { ...state, pinned: count, loads, slots, nextLoad: 0 };
}

/** Runs in memory that are not pinned any more. */
const leavers = ({ layout, loads, pinned }: WindowState, count: number): WindowAction[] =>
  layout.pinOrder
    .slice(count, pinned)
    .filter(run => loads[run] === 'ready')
    .map(run => ({ type: 'discard', run }));

function loadEnded(before: WindowState, run: number, failed: { error: unknown } | null): WindowStep {
  const state = { ...before, reading: before.reading - 1 };
  const load = state.loads[run];
  if (load === 'leaving') return fill(changeLoad(state, run, 'none'), [{ type: 'discard', run }]);
  if (load !== 'reading') return same(before);
  const ended = changeLoad(state, run, failed ? 'failed' : 'ready');
  const action: WindowAction = failed
    ? { type: 'fail', run, to: 'home', error: failed.error }
    : { type: 'ready', run, to: 'home' };
  return fill(ended, [action]);
}

// --- the ring ---

function slotEnded(before: WindowState, run: number, failed: { error: unknown } | null): WindowStep {
  const state = { ...before, reading: before.reading - 1 };
  const index = state.slots.findIndex(
    slot => slot.run === run && (slot.status === 'reading' || slot.status === 'dropped'),
  );
  const slot = state.slots[index];
  if (!slot) return same(before);
  const to = slot.status === 'dropped' ? 'free' : failed ? 'failed' : 'ready';
  const ended = { ...state, slots: state.slots.with(index, { ...slot, status: to }) };
  if (to === 'free') return fill(ended);
  const action: WindowAction = failed
    ? { type: 'fail', run, to: 'ring', error: failed.error }
    : { type: 'ready', run, to: 'ring' };
  return fill(ended, [action]);
}

function resizeRing(before: WindowState, ringBytes: number): WindowState {
  const state = { ...before, ringBytes };
  const first = state.slots.findIndex(
    ({ offset, bytes, open }) => open.length > 0 && offset + bytes > ringBytes,
  );
  if (first === -1) return state;
  const slots = state.slots.map((slot, i) => (i < first ? slot : giveUp(slot)));
  return { ...state, slots, next: slots[first]!.run };
}

function want(state: WindowState, tile: number): WindowState {
  const place = state.layout.places.get(tile);
  if (!place) return state;
  const load = state.loads[place.run];
  if (load !== 'none' && load !== 'leaving')
    return load === 'failed' ? changeLoad(state, place.run, 'waiting') : state;
  const slot = slotOf(state.slots, place.run, tile);
  if (!slot) {
    const skipped = new Set(state.skipped);
    skipped.delete(tile);
    return { ...state, slots: state.slots.map(giveUp), next: place.run, skipped };
  }
  const index = state.slots.indexOf(slot);
  const slots = state.slots.map((each, i) => {
    if (i < index) return giveUp(each);
    return i === index && each.status === 'failed' ? { ...each, status: 'retry' as const } : each;
  });
  return { ...state, slots };
}

function skip(state: WindowState, tile: number): WindowState {
  const place = state.layout.places.get(tile);
  const load = place && state.loads[place.run];
  if (!place || (load !== 'none' && load !== 'leaving')) return state;
  const slot = slotOf(state.slots, place.run, tile);
  if (!slot) return { ...state, skipped: new Set(state.skipped).add(tile) };
  return changeSlot(state, tile, each => withoutTile(each, tile));
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

/** Bytes are given back at both ends of those that were given out. */
function reclaim(state: WindowState): WindowState {
  const { slots } = state;
  let first = 0;
  let past = slots.length;
  while (slots[first]?.status === 'free') first++;
  while (past > first && slots[past - 1]!.status === 'free') past--;
  return past - first === slots.length ? state : { ...state, slots: slots.slice(first, past) };
}

function retryRead(state: WindowState): WindowStep | undefined {
  const index = state.slots.findIndex(({ status }) => status === 'retry');
  const slot = state.slots[index];
  if (!slot) return undefined;
  return {
    state: { ...state, slots: state.slots.with(index, { ...slot, status: 'reading' }) },
    actions: [{ type: 'read', run: slot.run, to: 'ring', offset: slot.offset }],
  };
}

function loadRead(state: WindowState): WindowStep | undefined {
  let run = state.nextLoad;
  while (run < state.loads.length && state.loads[run] !== 'waiting') run++;
  if (run === state.loads.length) return undefined;
  return {
    state: { ...changeLoad(state, run, 'reading'), nextLoad: run + 1 },
    actions: [{ type: 'read', run, to: 'home', offset: state.layout.homes[run]! }],
  };
}

/** The next run that streams, if the ring has room and does not hold it already. */
function aheadRead(before: WindowState): WindowStep | undefined {
  const found = nextStreamed(before);
  if (!found) return undefined;
  const { run, open, skipped } = found;
  const { layout, slots } = before;
  if (slots.some(slot => slot.run === run && slot.status !== 'free')) return undefined;
  const { bytes } = layout.runs[run]!;
  const offset = placeInRing(slots, bytes, before.ringBytes);
  if (offset === undefined) return undefined;
  const slot: Slot = { run, offset, bytes, status: 'reading', open, held: [] };
  return {
    state: { ...before, slots: [...slots, slot], skipped, next: (run + 1) % layout.runs.length },
    actions: [{ type: 'read', run, to: 'ring', offset }],
  };
}

/** From `next` on the first run that streams and of which a tile is not skipped; what was skipped on the way is used up. */
function nextStreamed(
  state: WindowState,
): { run: number; open: readonly number[]; skipped: ReadonlySet<number> } | undefined {
  const { runs } = state.layout;
  let { skipped } = state;
  for (let i = 0; i < runs.length; i++) {
    const run = (state.next + i) % runs.length;
    const load = state.loads[run];
    if (load !== 'none' && load !== 'leaving') continue;
    const tiles = runs[run]!.tiles.map(({ tile }) => tile);
    if (!tiles.some(tile => skipped.has(tile))) return { run, open: tiles, skipped };
    const left = new Set(skipped);
    const open = tiles.filter(tile => !left.delete(tile));
    skipped = left;
    if (open.length > 0) return { run, open, skipped };
  }
  return undefined;
}
