/**
 * The journal of a tile cache: a text line for each change, in the order in which it happened.
 *   + sha256 offset bytes crc32c     a tile lies at `offset`
 *   - sha256                         it is no longer there
 */

export interface Slot {
  readonly offset: number;
  readonly bytes: number;
  readonly crc32c: number;
}

/** Most bytes of a journal that is read: about 600,000 lines. */
export const JOURNAL_BYTES = 64 * 2 ** 20;

/** Most bytes of a line. */
const LINE_BYTES = 105;
/** A removed tile leaves two lines behind; from this many on a journal is written anew. */
const STALE_LINES = 1000;

const PUT = /^\+ ([0-9a-f]{64}) (\d{1,15}) (\d{1,10}) (\d{1,10})$/;
const REMOVE = /^- ([0-9a-f]{64})$/;

export const putLine = (hash: string, slot: Slot): string =>
  `+ ${hash} ${slot.offset} ${slot.bytes} ${slot.crc32c}\n`;

export const removeLine = (hash: string): string => `- ${hash}\n`;

/** The journal of these tiles and nothing else. */
export const journalOf = (slots: ReadonlyMap<string, Slot>): string =>
  [...slots].map(([hash, slot]) => putLine(hash, slot)).join('');

/** Whether a journal of `bytes`, where `tiles` are there, is to be written anew. */
export const isLongJournal = (bytes: number, tiles: number): boolean =>
  bytes > (tiles + STALE_LINES) * LINE_BYTES;

/** What a journal says. */
export interface Replay {
  readonly slots: Map<string, Slot>;
  /** Whether there were lines, or a rest without an end, that a crash tore. */
  readonly torn: boolean;
}

/**
 * The tiles that a journal says are there. A last line without its end, and lines that are no lines, were torn by a
 * crash and are passed over. A later tile takes the place of whatever lay there. `valid` refuses slots that cannot be.
 */
export function replayJournal(text: string, valid: (slot: Slot) => boolean): Replay {
  const slots = new Map<string, Slot>();
  const lines = text.split('\n');
  let torn = lines.pop() !== '';
  for (const line of lines) {
    const put = PUT.exec(line);
    const removed = put ? null : REMOVE.exec(line);
    if (put) {
      const slot = { offset: Number(put[2]), bytes: Number(put[3]), crc32c: Number(put[4]) };
      if (slot.bytes > 0 && slot.crc32c <= 0xffffffff && valid(slot)) slots.set(put[1]!, slot);
    } else if (removed) slots.delete(removed[1]!);
    else torn = true;
  }
  return { slots: withoutOverlaps(slots), torn };
}

/** Keeps of slots that overlap the one that was put last. */
function withoutOverlaps(slots: Map<string, Slot>): Map<string, Slot> {
  const byOffset = [...slots].map(([hash, slot], time) => ({ hash, slot, time }));
  byOffset.sort((a, b) => a.slot.offset - b.slot.offset);
  const kept: typeof byOffset = [];
  for (const next of byOffset) {
    let newest = true;
    while (newest && kept.length > 0) {
      const last = kept.at(-1)!;
      if (last.slot.offset + last.slot.bytes <= next.slot.offset) break;
      if (last.time < next.time) kept.pop();
      else newest = false;
    }
    if (newest) kept.push(next);
  }
  kept.sort((a, b) => a.time - b.time);
  return new Map(kept.map(({ hash, slot }) => [hash, slot]));
}
