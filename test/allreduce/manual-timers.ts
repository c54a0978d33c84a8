import type { Timers } from '../../src/allreduce/deadline.ts';

/** A clock that stands still until a test moves it. */
export class ManualTimers implements Timers {
  #time = 0;
  #timers = new Map<object, { at: number; call: () => void }>();

  now(): number {
    return this.#time;
  }

  setTimeout(call: () => void, milliseconds: number): unknown {
    const timer = {};
    this.#timers.set(timer, { at: this.#time + milliseconds, call });
    return timer;
  }

  clearTimeout(timer: unknown): void {
    this.#timers.delete(timer as object);
  }

  get pending(): number {
    return this.#timers.size;
  }

  /** Moves the clock and calls what is due, in order. */
  advance(milliseconds: number): void {
    this.#time += milliseconds;
    const due = [...this.#timers].filter(([, { at }]) => at <= this.#time).sort((a, b) => a[1].at - b[1].at);
    for (const [timer, { call }] of due) if (this.#timers.delete(timer)) call();
  }
}
