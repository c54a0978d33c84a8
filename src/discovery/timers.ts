/** The clock of whoever owns the process. */
export interface Timers {
  /** Milliseconds since some moment; they only rise. */
  now(): number;
  setTimeout(call: () => void, milliseconds: number): unknown;
  clearTimeout(timer: unknown): void;
}
