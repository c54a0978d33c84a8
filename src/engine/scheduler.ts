import { asPotluckError, type PotluckError } from '../errors/errors.ts';
import { KvPages, PageTable, pagesFor } from './kv-pages.ts';
import type { Capacity, Sequence } from './sequence.ts';

/**
 * Decides which sequences are active (hold KV pages and take part in passes) and which wait, both in order of arrival.
 * Where pages run out, the youngest active sequence waits again, those with a slow consumer first; its tokens go through
 * passes anew later. So the oldest always goes on, and every sequence that fits the pages alone comes to its end.
 */
export class Scheduler {
  readonly active: Sequence[] = [];
  readonly waiting: Sequence[] = [];
  /** How often a sequence lost its pages to another. */
  preemptions = 0;
  #pages = new KvPages(0);
  #capacity: Capacity = { context: 0, kvPositions: 0, vocabulary: 0 };
  readonly #maxActive: number;

  constructor(maxActive: number) {
    this.#maxActive = maxActive;
  }

  get pagesFree(): number {
    return this.#pages.free;
  }

  get pagesTotal(): number {
    return this.#pages.total;
  }

  /** True where a sequence could take part in a pass. */
  get hasWork(): boolean {
    return this.active.some(runnable) || this.waiting.some(runnable);
  }

  add(sequence: Sequence): void {
    insert(this.waiting, sequence);
  }

  /** Takes a sequence out, with its pages, at any moment: a pass in flight keeps its own view of the page table. */
  remove(sequence: Sequence): void {
    if (sequence.state === 'done') return;
    drop(sequence.state === 'active' ? this.active : this.waiting, sequence);
    this.#release(sequence);
    sequence.state = 'done';
  }

  /** Removes a sequence and tells its reader why. */
  fail(sequence: Sequence, error: PotluckError): void {
    if (sequence.state === 'done') return;
    this.remove(sequence);
    sequence.reader.fail(error);
  }

  failAll(error: PotluckError): void {
    for (const sequence of [...this.active, ...this.waiting]) this.fail(sequence, error);
  }

  /** Fails all after a defect: which pages are free is not known any more, so none is given back. */
  abandon(error: PotluckError): void {
    for (const sequence of this.active) sequence.table = null;
    this.#pages = new KvPages(0);
    this.failAll(error);
  }

  /** All keys and values are gone: every active sequence waits, to start over from its tokens. */
  restart(): void {
    for (const sequence of [...this.active]) this.#backToWaiting(sequence);
  }

  /** Uses the pages of a new plan. No sequence may be active. */
  adopt(capacity: Capacity, pages: KvPages): void {
    this.#capacity = capacity;
    this.#pages = pages;
    for (const sequence of this.waiting) sequence.fitted = false;
  }

  /** Makes as many waiting sequences active as there is room for. */
  admit(): void {
    this.#fitNew();
    for (;;) {
      const next = this.waiting.find(runnable);
      if (next === undefined || !this.#makeRoom(next)) return;
      const table = new PageTable(this.#pages);
      table.reserve(next.tokens.length);
      drop(this.waiting, next);
      insert(this.active, next);
      next.table = table;
      next.state = 'active';
    }
  }

  #fitNew(): void {
    for (const sequence of this.waiting.filter(s => !s.fitted)) {
      sequence.fitted = true;
      try {
        if (sequence.reader.fit(this.#capacity) === 'finished') this.remove(sequence);
      } catch (error) {
        this.fail(sequence, asPotluckError(error));
      }
    }
  }

  /** True once there is a place and pages for `next`; sequences with a slow consumer give theirs up for it. */
  #makeRoom(next: Sequence): boolean {
    while (!this.#hasRoom(next)) {
      const stalled = this.active.findLast(s => !runnable(s));
      if (stalled === undefined) return false;
      this.#preempt(stalled);
    }
    return true;
  }

  /** Room is pages for all its tokens and, beside others, one more for each of them to grow and for itself. */
  #hasRoom(next: Sequence): boolean {
    if (this.active.length >= this.#maxActive) return false;
    const spare = this.active.length === 0 ? 0 : this.active.length + 1;
    return pagesFor(next.tokens.length) + spare <= this.#pages.free;
  }

  /** Gives every active sequence pages for all its tokens, oldest first; who gets none waits. */
  growTables(): void {
    for (const sequence of [...this.active]) {
      while (
        sequence.table !== null &&
        runnable(sequence) &&
        !sequence.table.reserve(sequence.tokens.length)
      ) {
        this.#preempt(this.active.findLast(s => !runnable(s)) ?? this.active.at(-1)!);
      }
    }
  }

  /** Sequences that grew over a length at which rotations change start over from their tokens, in the pages they have. */
  turnOver(length: number): void {
    for (const sequence of this.active) {
      if (sequence.tokens.length <= length || sequence.length > length) continue;
      sequence.length = length + 1;
      sequence.cached = 0;
    }
  }

  #preempt(sequence: Sequence): void {
    this.preemptions++;
    this.#backToWaiting(sequence);
  }

  #backToWaiting(sequence: Sequence): void {
    drop(this.active, sequence);
    this.#release(sequence);
    insert(this.waiting, sequence);
    sequence.state = 'waiting';
  }

  #release(sequence: Sequence): void {
    sequence.table?.release();
    sequence.table = null;
    sequence.cached = 0;
  }
}

const runnable = (s: Sequence): boolean => !s.reader.paused;

/** Keeps `list` in order of arrival. */
function insert(list: Sequence[], sequence: Sequence): void {
  const after = list.findLastIndex(s => s.arrival < sequence.arrival);
  list.splice(after + 1, 0, sequence);
}

function drop(list: Sequence[], sequence: Sequence): void {
  const at = list.indexOf(sequence);
  if (at >= 0) list.splice(at, 1);
}
