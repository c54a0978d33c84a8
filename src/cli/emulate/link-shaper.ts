/** The limits of one device's link. */
export interface LinkLimits {
  /** Added to every byte, in one direction. */
  readonly latencyMilliseconds: number;
  /** Bytes a second, shared by all connections of the device and by both directions, as on Wi-Fi; null: no limit. */
  readonly bytesPerSecond: number | null;
}

/** Bytes that travel in one piece, so that connections which share a link take turns. */
export const PIECE_BYTES = 4096;

/**
 * When bytes that enter a link now come out of it. A single queue in virtual time: the link is busy until it has sent
 * what came before; a piece comes out when it was sent, plus the latency. Times in milliseconds.
 */
export class LinkShaper {
  readonly limits: LinkLimits;
  #busyUntil = 0;

  constructor(limits: LinkLimits) {
    this.limits = limits;
  }

  /** Takes the next slot of the link for `bytes`; returns when the last of them arrives. */
  schedule(bytes: number, now: number): number {
    const { bytesPerSecond, latencyMilliseconds } = this.limits;
    const sending = bytesPerSecond === null ? 0 : (bytes / bytesPerSecond) * 1000;
    this.#busyUntil = Math.max(this.#busyUntil, now) + sending;
    return this.#busyUntil + latencyMilliseconds;
  }

  /** Bytes that may be under way in one direction of a connection before its sender is paused. */
  get queueLimit(): number {
    const { bytesPerSecond, latencyMilliseconds } = this.limits;
    const inFlight = bytesPerSecond === null ? 0 : (bytesPerSecond * latencyMilliseconds) / 1000;
    return Math.max(256 * 1024, Math.ceil(inFlight * 2));
  }
}
