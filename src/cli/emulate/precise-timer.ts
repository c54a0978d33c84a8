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
 * Node's timers count whole milliseconds, which would double a link latency of one. So the last bit before a
 * moment is spent in turns of the event loop with naps between, which cost a tenth of a processor rather than all of it.
 */
export const preciseClock: RelayClock = {
  now: () => performance.now(),
  at(time, fire) {
    let cancel: () => void = () => undefined;
    const step = (): void => {
      const left = time - performance.now();
      if (left <= 0) {
        fire();
      } else if (left > 2) {
        const timer = setTimeout(step, Math.floor(left - 1));
        cancel = () => clearTimeout(timer);
      } else {
        nap(Math.min(left, NAP_MILLISECONDS));
        const turn = setImmediate(step);
        cancel = () => clearImmediate(turn);
      }
    };
    const turn = setImmediate(step);
    cancel = () => clearImmediate(turn);
    return () => cancel();
  },
};

const napCell = new Int32Array(new SharedArrayBuffer(4));

function nap(milliseconds: number): void {
  Atomics.wait(napCell, 0, 0, milliseconds);
}
