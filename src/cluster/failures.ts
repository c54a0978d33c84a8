import type { ErrorCode, PotluckError } from '../errors/errors.ts';

const FIRST_BACKOFF_MS = 500;
const LONGEST_BACKOFF_MS = 60_000;
/** A device that was well for this long starts over. */
const FORGIVE_MS = 300_000;
const MOST_REMEMBERED = 64;

/** A device that failed, and is left out of plans until `until` (milliseconds of the injected clock). */
export interface Failure {
  readonly deviceId: string;
  readonly name: string;
  readonly code: ErrorCode;
  readonly message: string;
  readonly at: number;
  readonly until: number;
  /** Failures in a row. */
  readonly count: number;
}

/** Devices that failed in a plan, with a backoff that doubles. */
export class Failures {
  readonly #now: () => number;
  readonly #byDevice = new Map<string, Failure>();

  constructor(now: () => number) {
    this.#now = now;
  }

  add(device: { readonly id: string; readonly name: string }, error: PotluckError): Failure {
    const now = this.#now();
    const before = this.#byDevice.get(device.id);
    const count = before === undefined || now - before.at > FORGIVE_MS ? 1 : before.count + 1;
    const backoff = Math.min(LONGEST_BACKOFF_MS, FIRST_BACKOFF_MS * 2 ** Math.min(count - 1, 16));
    const failure: Failure = {
      deviceId: device.id,
      name: device.name,
      code: error.code,
      message: error.message,
      at: now,
      until: now + backoff,
      count,
    };
    this.#byDevice.delete(device.id);
    this.#byDevice.set(device.id, failure);
    if (this.#byDevice.size > MOST_REMEMBERED) this.#byDevice.delete(this.#byDevice.keys().next().value!);
    return failure;
  }

  /** The device may be planned with. */
  isOver(deviceId: string): boolean {
    const failure = this.#byDevice.get(deviceId);
    return failure === undefined || failure.until <= this.#now();
  }

  /** Those that are still left out. */
  get current(): Failure[] {
    return [...this.#byDevice.values()].filter(failure => !this.isOver(failure.deviceId));
  }

  /** Milliseconds until the next one is over; null where all are. */
  get nextEndMs(): number | null {
    const ends = this.current.map(failure => failure.until);
    return ends.length === 0 ? null : Math.min(...ends) - this.#now();
  }
}
