import { PotluckError } from '../errors/errors.ts';
import { PAGE_POSITIONS } from '../pack/tile-shape.ts';

/** Pages that hold `positions` positions. */
export const pagesFor = (positions: number): number => Math.ceil(positions / PAGE_POSITIONS);

/**
 * Owns the page ids 0 .. total-1. Pages freed last are given out first, and low ids before high ones: devices take
 * memory for a page when it is first written.
 */
export class KvPages {
  readonly total: number;
  /** Free ids, a stack; [total], the first #freeCount are valid. */
  readonly #stack: Int32Array;
  /** 1 where the page is given out; [total]. */
  readonly #taken: Uint8Array;
  #freeCount: number;

  constructor(total: number) {
    this.total = total;
    this.#stack = Int32Array.from({ length: total }, (_, i) => total - 1 - i);
    this.#taken = new Uint8Array(total);
    this.#freeCount = total;
  }

  get free(): number {
    return this.#freeCount;
  }

  /** A page. Throws INTERNAL where none is free: ask `free` before. */
  take(): number {
    if (this.#freeCount === 0) throw new PotluckError('INTERNAL', 'A KV page was taken where none is free.');
    const page = this.#stack[--this.#freeCount]!;
    this.#taken[page] = 1;
    return page;
  }

  /** Gives a page back. Throws INTERNAL where it is not taken. */
  release(page: number): void {
    if (this.#taken[page] !== 1)
      throw new PotluckError('INTERNAL', `KV page ${page} was freed but is not taken.`);
    this.#taken[page] = 0;
    this.#stack[this.#freeCount++] = page;
  }
}

/** The pages of one sequence, by position / PAGE_POSITIONS. */
export class PageTable {
  readonly #pool: KvPages;
  #ids = new Int32Array(8);
  #view = this.#ids.subarray(0, 0);

  constructor(pool: KvPages) {
    this.#pool = pool;
  }

  /** Exactly the pages held. A view taken earlier stays as it was when the table grows or is released. */
  get pages(): Int32Array {
    return this.#view;
  }

  /** Grows to `positions` positions; false, and no change, where too few pages are free. */
  reserve(positions: number): boolean {
    const held = this.#view.length;
    const wanted = pagesFor(positions);
    if (wanted <= held) return true;
    if (wanted - held > this.#pool.free) return false;
    if (wanted > this.#ids.length) {
      const larger = new Int32Array(Math.max(wanted, 2 * this.#ids.length));
      larger.set(this.#view);
      this.#ids = larger;
    }
    for (let i = held; i < wanted; i++) this.#ids[i] = this.#pool.take();
    this.#view = this.#ids.subarray(0, wanted);
    return true;
  }

  /** Gives every page back. */
  release(): void {
    for (const page of this.#view) this.#pool.release(page);
    this.#ids = new Int32Array(8);
    this.#view = this.#ids.subarray(0, 0);
  }
}
