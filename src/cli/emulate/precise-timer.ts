/** Time for the relay: fractions of a millisecond matter there. */
export interface RelayClock {
  /** Milliseconds from some start. */
  now(): number;
  /** Calls `fire` once, at `time` or a little later. Returns a function that calls it off. */
  at(time: number, fire: () => void): () => void;
}

/** Longest sleep that keeps incoming bytes waiting. */
const NAP_MILLISECONDS = 0.1;

/**
 * Node's timers count whole milliseconds, which would double a link latency of one. So the last bit before a moment is
 * spent in turns of the event loop with naps between, which cost a tenth of a processor rather than all of it.
 * One loop serves all waiting calls, so naps do not add up.
 */
class PreciseClock implements RelayClock {
  readonly #waiting = new Set<{ readonly time: number; readonly fire: () => void }>();
  #timer: NodeJS.Timeout | null = null;
  #turning = false;

  now(): number {
    return performance.now();
  }

  at(time: number, fire: () => void): () => void {
    const call = { time, fire };
    this.#waiting.add(call);
    this.#sleep();
    return () => this.#waiting.delete(call);
  }

  #sleep(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    if (this.#turning || this.#waiting.size === 0) return;
    const left = this.#earliest() - performance.now();
    if (left > 2) {
      this.#timer = setTimeout(() => this.#sleep(), Math.floor(left - 1));
      return;
    }
    this.#turning = true;
    setImmediate(() => this.#turn());
  }

  #turn(): void {
    const now = performance.now();
    for (const call of [...this.#waiting]) {
      // A call may have been called off by one before it.
      if (call.time <= now && this.#waiting.delete(call)) call.fire();
    }
    if (this.#waiting.size > 0) nap(Math.min(this.#earliest() - performance.now(), NAP_MILLISECONDS));
    this.#turning = false;
    this.#sleep();
  }

  #earliest(): number {
    let earliest = Number.POSITIVE_INFINITY;
    for (const { time } of this.#waiting) earliest = Math.min(earliest, time);
    return earliest;
  }
}

export const preciseClock: RelayClock = new PreciseClock();

const napCell = new Int32Array(new SharedArrayBuffer(4));

function nap(milliseconds: number): void {
  if (milliseconds > 0) Atomics.wait(napCell, 0, 0, milliseconds);
}
