import type { RingSpace } from './ring.ts';

/**
 * reading: under way. ready: in memory. failed: keeps its bytes until it is wanted again; retry: wanted again, not yet
 * under way. dropped: under way but not wanted. free: bytes to be given back.
 */
export type SlotStatus = 'reading' | 'ready' | 'failed' | 'retry' | 'dropped' | 'free';

/** Bytes of the ring that belong to one run. */
export interface Slot extends RingSpace {
  readonly run: number;
  readonly status: SlotStatus;
  /** Tiles of the run that this pass still wants. */
  readonly open: readonly number[];
  /** Tiles that are handed out, until their release. */
  readonly held: readonly number[];
}

/** The slot of `run` in which `tile` is wanted or handed out. */
export const slotOf = (slots: readonly Slot[], run: number, tile: number): Slot | undefined =>
  slots.find(slot => slot.run === run && (slot.open.includes(tile) || slot.held.includes(tile)));

/** What becomes of a slot that nobody needs any more. */
const given: Readonly<Record<SlotStatus, SlotStatus>> = {
  reading: 'dropped',
  ready: 'free',
  failed: 'free',
  retry: 'free',
  dropped: 'dropped',
  free: 'free',
};

/** Nobody wants more of it; what is handed out keeps its bytes. */
export function giveUp(slot: Slot): Slot {
  if (slot.held.length > 0) return slot.open.length === 0 ? slot : { ...slot, open: [] };
  return { ...slot, open: [], status: given[slot.status] };
}

/** One tile less that is wanted or handed out; behind the last one the bytes are free. */
export function withoutTile(slot: Slot, tile: number): Slot {
  const open = slot.open.filter(other => other !== tile);
  const held = slot.held.filter(other => other !== tile);
  const less = { ...slot, open, held };
  return open.length === 0 && held.length === 0 ? giveUp(less) : less;
}
