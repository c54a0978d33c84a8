import type { Timers } from '../discovery/timers.ts';

const HEARTBEAT_MS = 500;
/** A device that was not heard for this long is lost. */
const SILENCE_MS = 3000;

export interface HeartbeatOptions {
  readonly timers: Timers;
  readonly ping: (n: number) => void;
  readonly lost: (silenceMs: number) => void;
}

/** Asks the other side for a sign of life, and says when none comes. */
export class Heartbeat {
  readonly #options: HeartbeatOptions;
  #timer: unknown = null;
  #n = 0;
  #sentAt = 0;
  #heardAt = 0;
  #nextAt = 0;
  roundTripMs: number | null = null;

  constructor(options: HeartbeatOptions) {
    this.#options = options;
  }

  start(): void {
    this.#heardAt = this.#options.timers.now();
    this.#nextAt = this.#heardAt;
    this.#beat();
  }

  stop(): void {
    this.#options.timers.clearTimeout(this.#timer);
    this.#timer = null;
  }

  /** The other side sent something. */
  heard(): void {
    this.#heardAt = this.#options.timers.now();
  }

  pong(n: number): void {
    if (n === this.#n) this.roundTripMs = this.#options.timers.now() - this.#sentAt;
  }

  #beat(): void {
    const { timers, ping, lost } = this.#options;
    const now = timers.now();
    // this process itself slept (or its clock was set): what came meanwhile is not read yet, so it does not count
    const late = Math.abs(now - this.#nextAt);
    if (late > HEARTBEAT_MS) this.#heardAt = Math.min(now, this.#heardAt + (now - this.#nextAt));
    const silence = now - this.#heardAt;
    if (silence >= SILENCE_MS) {
      lost(silence);
      return;
    }
    this.#nextAt = now + HEARTBEAT_MS;
    this.#timer = timers.setTimeout(() => this.#beat(), HEARTBEAT_MS);
    this.#n += 1;
    this.#sentAt = now;
    ping(this.#n);
  }
}
