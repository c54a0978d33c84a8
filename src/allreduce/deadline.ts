import type { PotluckError } from '../errors/errors.ts';

/** Clock and timers of the caller. */
export interface Timers {
  /** Milliseconds that only rise, with fractions. */
  now(): number;
  setTimeout(call: () => void, milliseconds: number): unknown;
  clearTimeout(timer: unknown): void;
}

/** A promise that its owner settles, or that `expired` rejects when time is up. */
export class Wait {
  readonly promise: Promise<void>;
  readonly #timers: Timers;
  readonly #timer: unknown;
  #resolve: () => void = () => undefined;
  #reject: (error: PotluckError) => void = () => undefined;

  /** `expired` is called when `milliseconds` went by without `resolve` or `reject`; it should reject. */
  constructor(timers: Timers, milliseconds: number, expired: () => void) {
    this.promise = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.#timers = timers;
    this.#timer = timers.setTimeout(expired, milliseconds);
  }

  resolve(): void {
    this.#timers.clearTimeout(this.#timer);
    this.#resolve();
  }

  reject(error: PotluckError): void {
    this.#timers.clearTimeout(this.#timer);
    this.#reject(error);
  }
}
