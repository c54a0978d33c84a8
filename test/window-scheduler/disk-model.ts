import type { WindowAction } from '../../src/window-scheduler/window-machine.ts';

interface Range {
  readonly from: number;
  readonly to: number;
}

/** Throws where `holds` is false; called too often for expect. */
export function check(holds: boolean, otherwise: string): void {
  if (!holds) throw new Error(otherwise);
}

const overlap = (a: Range, b: Range): boolean => a.from < b.to && b.from < a.to;

/**
 * What lies where in the weights memory, kept apart from the machine's own idea of it. Throws where a read would write
 * over bytes that are in use, past the memory, or where it should not go.
 */
export class DiskModel {
  /** Reads under way, by 'home 3' or 'ring 3'. */
  readonly reading = new Map<string, Range>();
  readonly content = new Map<string, Range>();
  /** Tiles that are handed out. */
  readonly taken = new Map<number, Range>();
  /** Runs that were read to the ring. */
  readonly ringLog: number[] = [];
  readonly #bytes: readonly number[];
  readonly #memoryBytes: number;
  readonly #ringBytes: number;
  readonly #readDepth: number;

  constructor(bytes: readonly number[], memoryBytes: number, ringBytes: number, readDepth: number) {
    this.#bytes = bytes;
    this.#memoryBytes = memoryBytes;
    this.#ringBytes = ringBytes;
    this.#readDepth = readDepth;
  }

  begin({ run, to, offset }: Extract<WindowAction, { type: 'read' }>): void {
    const range = { from: offset, to: offset + this.#bytes[run]! };
    const key = `${to} ${run}`;
    const what = `read of ${key} to ${range.from}..${range.to}`;
    check(offset % 4096 === 0, `${what} is not aligned`);
    check(range.to <= this.#memoryBytes, `${what} goes past the memory`);
    check(
      to === 'ring' ? range.to <= this.#ringBytes : range.from >= this.#ringBytes,
      `${what} is elsewhere`,
    );
    check(!this.reading.has(key), `${what} is under way already`);
    for (const [other, at] of [...this.reading, ...this.taken])
      check(!overlap(range, at), `${what} goes over ${other} at ${at.from}..${at.to}`);
    for (const [other, at] of this.content) {
      if (!overlap(range, at)) continue;
      check(other === key || other.startsWith('ring'), `${what} goes over pinned ${other}`);
      this.content.delete(other);
    }
    this.reading.set(key, range);
    check(this.reading.size <= this.#readDepth, `${what} is one too many`);
    if (to === 'ring') this.ringLog.push(run);
  }

  end(key: string, well: boolean): void {
    const range = this.reading.get(key)!;
    this.reading.delete(key);
    this.content.delete(key);
    if (well) this.content.set(key, range);
  }

  discard(run: number): void {
    const key = `home ${run}`;
    const range = this.content.get(key);
    for (const [tile, at] of this.taken)
      check(!range || !overlap(range, at), `home ${run} is discarded while tile ${tile} is in use`);
    check(!this.reading.has(key), `home ${run} is discarded while it is read`);
    this.content.delete(key);
  }

  /** `offset` of a tile of `bytes` bytes. */
  take(tile: number, run: number, offset: number, bytes: number): void {
    const range = { from: offset, to: offset + bytes };
    const holders = [`home ${run}`, `ring ${run}`].map(key => this.content.get(key));
    const inside = holders.some(at => at && at.from <= range.from && range.to <= at.to);
    check(inside, `tile ${tile} is handed out at ${offset}, where run ${run} does not lie`);
    this.taken.set(tile, range);
  }

  release(tile: number): void {
    this.taken.delete(tile);
  }
}
