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
 * over bytes that are in use, past the memory, or that are there already.
 */
export class DiskModel {
  readonly reading = new Map<number, Range>();
  readonly content = new Map<number, Range>();
  readonly taken = new Map<number, Range>();
  readonly readLog: number[] = [];
  readonly #bytes: ReadonlyMap<number, number>;
  readonly #pinned: ReadonlySet<number>;
  readonly #memoryBytes: number;
  readonly #ringOffset: number;
  readonly #readDepth: number;

  constructor(
    bytes: ReadonlyMap<number, number>,
    pinned: ReadonlySet<number>,
    memoryBytes: number,
    ringOffset: number,
    readDepth: number,
  ) {
    this.#bytes = bytes;
    this.#pinned = pinned;
    this.#memoryBytes = memoryBytes;
    this.#ringOffset = ringOffset;
    this.#readDepth = readDepth;
  }

  begin({ tile, offset }: Extract<WindowAction, { type: 'read' }>): void {
    const range = { from: offset, to: offset + this.#bytes.get(tile)! };
    const what = `read of tile ${tile} to ${range.from}..${range.to}`;
    check(offset % 4096 === 0, `${what} is not aligned`);
    check(range.to <= this.#memoryBytes, `${what} goes past the memory`);
    check(range.from >= this.#ringOffset === !this.#pinned.has(tile), `${what} mixes ring and pinned tiles`);
    check(!this.reading.has(tile), `${what} is under way already`);
    check(!this.taken.has(tile), `${what} is in use`);
    for (const [other, at] of [...this.reading, ...this.taken]) {
      check(!overlap(range, at), `${what} goes over tile ${other} at ${at.from}..${at.to}`);
    }
    for (const [other, at] of this.content) {
      if (!overlap(range, at)) continue;
      check(!this.#pinned.has(other), `${what} goes over pinned tile ${other}`);
      this.content.delete(other);
    }
    this.reading.set(tile, range);
    check(this.reading.size <= this.#readDepth, `${what} is one too many`);
    this.readLog.push(tile);
  }

  end(tile: number, well: boolean): void {
    const range = this.reading.get(tile)!;
    this.reading.delete(tile);
    this.content.delete(tile);
    if (well) this.content.set(tile, range);
  }

  take(tile: number, offset: number): void {
    const range = this.content.get(tile);
    check(range?.from === offset, `tile ${tile} is handed out at ${offset}, it lies at ${range?.from}`);
    if (!this.#pinned.has(tile)) this.taken.set(tile, range!);
  }

  release(tile: number): void {
    this.taken.delete(tile);
  }
}
