/** Clock and timers of this process; milliseconds that only rise. */
export const TIMERS = {
  now: () => performance.now(),
  setTimeout: (call: () => void, milliseconds: number): unknown => setTimeout(call, milliseconds),
  clearTimeout: (timer: unknown): void => clearTimeout(timer as NodeJS.Timeout),
};
