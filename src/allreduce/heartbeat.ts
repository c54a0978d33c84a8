import type { Timers } from './deadline.ts';

export interface HeartbeatOptions {
  readonly timers: Timers;
  /** Milliseconds between two signs of life. */
  readonly interval: number;
  /** A device that was not heard for so many milliseconds is lost. */
  readonly silence: number;
  /** The same before it was heard for the first time; `silence` where absent. */
  readonly firstSilence?: number | undefined;
  readonly ping: (n: number) => void;
  readonly lost: (silenceMs: number) => void;
}

/** Gives the other side signs of life, and says when none comes from there. */
export class Heartbeat {
  readonly #options: HeartbeatOptions;
  #timer: unknown = null;
  #n = 0;
  #sentAt = 0;
  #heardAt = 0;
  #wasHeard = false;
  #nextAt = 0;
  roundTripMs: number | null = null;

  constructor(options: HeartbeatOptions) {
    this.#options = options;
  }

  /** From now on silence counts; the first ping goes out after an interval. */
  start(): void {
    this.#heardAt = this.#options.timers.now();
    this.#schedule(this.#heardAt);
  }

  stop(): void {
    this.#options.timers.clearTimeout(this.#timer);
    this.#timer = null;
  }

  ping(): void {
    this.#n += 1;
    this.#sentAt = this.#options.timers.now();
    this.#options.ping(this.#n);
  }

  /** The other side sent something. */
  heard(): void {
    this.#heardAt = this.#options.timers.now();
    this.#wasHeard = true;
  }

  pong(n: number): void {
    if (n === this.#n) this.roundTripMs = this.#options.timers.now() - this.#sentAt;
  }

  #schedule(now: number): void {
    const { timers, interval } = this.#options;
    this.#nextAt = now + interval;
    this.#timer = timers.setTimeout(() => this.#beat(), interval);
  }

  #beat(): void {
    const { timers, interval, silence, firstSilence, lost } = this.#options;
    const now = timers.now();
    // this process itself slept (or its clock was set): what came meanwhile is not read yet, so it does not count
    const late = Math.abs(now - this.#nextAt);
    if (late > interval) this.#heardAt = Math.min(now, this.#heardAt + (now - this.#nextAt));
    const silent = now - this.#heardAt;
    if (silent >= (this.#wasHeard ? silence : (firstSilence ?? silence))) {
      lost(silent);
      return;
    }
    this.#schedule(now);
    this.ping();
  }
}
