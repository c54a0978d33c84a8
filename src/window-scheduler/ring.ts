/**
 * Space of the ring: slots are given out and taken back in one order, each contiguous, wrapping at the end.
 */

/** Bytes of the ring in use. */
export interface RingSpace {
  /** From the start of the ring. */
  readonly offset: number;
  readonly bytes: number;
}

/**
 * Offset for `bytes` more after `spaces` (oldest first, as this function placed them) in a ring of `ringBytes`, or
 * undefined where they do not fit yet. An empty ring takes anything up to its size. After the ring got smaller, spaces may
 * lie behind its end until they are given back.
 */
export function placeInRing(
  spaces: readonly RingSpace[],
  bytes: number,
  ringBytes: number,
): number | undefined {
  const oldest = spaces[0];
  const newest = spaces.at(-1);
  if (!oldest || !newest) return bytes <= ringBytes ? 0 : undefined;
  const end = newest.offset + newest.bytes;
  const wrapped = newest.offset < oldest.offset;
  if (end + bytes <= (wrapped ? Math.min(oldest.offset, ringBytes) : ringBytes)) return end;
  return !wrapped && bytes <= Math.min(oldest.offset, ringBytes) ? 0 : undefined;
}
