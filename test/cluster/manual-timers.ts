import type { Timers } from '../../src/discovery/timers.ts';

/** A clock that the test moves. */
export class ManualTimers implements Timers {
  #now = 0;
  #next = 1;
  readonly #timers = new Map<number, { at: number; call: () => void }>();

  now(): number {
    return this.#now;
  }

  setTimeout(call: () => void, milliseconds: number): number {
    this.#timers.set(this.#next, { at: this.#now + milliseconds, call });
    return this.#next++;
  }

  clearTimeout(timer: unknown): void {
    this.#timers.delete(timer as number);
  }

  get pending(): number {
    return this.#timers.size;
  }

  /** Moves the clock, calling what is due in order of time. */
  advance(milliseconds: number): void {
    const end = this.#now + milliseconds;
    for (;;) {
      const [first] = [...this.#timers].filter(([, t]) => t.at <= end).sort(([, a], [, b]) => a.at - b.at);
      if (first === undefined) break;
      this.#timers.delete(first[0]);
      this.#now = Math.max(this.#now, first[1].at);
      first[1].call();
    }
    this.#now = end;
  }

  /** The process slept: time passed, and timers come late. */
  sleep(milliseconds: number): void {
    this.#now += milliseconds;
  }
}
