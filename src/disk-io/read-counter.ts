import { sourceClosed } from './tile-errors.ts';
import type { TileSourceStats } from './tile-source.ts';

/** Reads of one source: counts them, tries a failed one once more, and lets `close` wait for those under way. */
export class ReadCounter {
  #stats = { reads: 0, bytes: 0, microseconds: 0, retries: 0 };
  #underWay = new Set<Promise<void>>();
  #closed = false;

  get closed(): boolean {
    return this.#closed;
  }

  stats(): TileSourceStats {
    return { ...this.#stats };
  }

  /** `attempt` resolves with the microseconds that the read took. */
  run(tile: number, bytes: number, attempt: () => Promise<number>): Promise<void> {
    if (this.#closed) return Promise.reject(sourceClosed(tile));
    const read = this.#twice(bytes, attempt);
    this.#underWay.add(read);
    const ended = (): void => {
      this.#underWay.delete(read);
    };
    read.then(ended, ended);
    return read;
  }

  async #twice(bytes: number, attempt: () => Promise<number>): Promise<void> {
    let microseconds: number;
    try {
      microseconds = await attempt();
    } catch (error) {
      if (this.#closed) throw error;
      this.#stats.retries++;
      microseconds = await attempt();
    }
    this.#stats.reads++;
    this.#stats.bytes += bytes;
    this.#stats.microseconds += microseconds;
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.allSettled(this.#underWay);
  }
}
