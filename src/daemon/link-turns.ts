import type { Timers } from '../allreduce/deadline.ts';
import { TileBuffer } from '../cluster/tile-buffer.ts';
import { PotluckError } from '../errors/errors.ts';

/** Lets so many transfers go on at a time, each with memory of its own; the others wait in line, each until its deadline. */
export class LinkTurns {
  readonly #free: TileBuffer[];
  readonly #waiting = new Set<(turn: TileBuffer) => void>();
  readonly #timers: Timers;
  readonly #milliseconds: number;
  /** Turns that may still be replaced while theirs hang. */
  #spare: number;

  /** `milliseconds`: that one waits at the most. */
  constructor(count: number, milliseconds: number, timers: Timers) {
    this.#free = Array.from({ length: count }, () => new TileBuffer());
    this.#spare = count;
    this.#milliseconds = milliseconds;
    this.#timers = timers;
  }

  /** Resolves to null where `gone` aborts before. Rejects with BUSY after the deadline. */
  take(gone: AbortSignal): Promise<TileBuffer | null> {
    if (gone.aborted) return Promise.resolve(null);
    const turn = this.#free.pop();
    if (turn) return Promise.resolve(turn);
    return new Promise((resolve, reject) => {
      const leave = () => {
        this.#waiting.delete(begin);
        this.#timers.clearTimeout(timer);
        gone.removeEventListener('abort', abandon);
      };
      const begin = (given: TileBuffer) => {
        leave();
        resolve(given);
      };
      const abandon = () => {
        leave();
        resolve(null);
      };
      const timer = this.#timers.setTimeout(() => {
        leave();
        reject(
          new PotluckError(
            'BUSY',
            `This device sends as much as it can to others; no turn came within ${this.#milliseconds} ms. Ask again.`,
          ),
        );
      }, this.#milliseconds);
      gone.addEventListener('abort', abandon);
      this.#waiting.add(begin);
    });
  }

  /**
   * Gives back a turn whose memory something writes to until `ended` settles, which may be never: another takes its place at once, as
   * long as no more hang than there are turns; memory has a limit.
   */
  giveBackHanging(turn: TileBuffer, ended: Promise<unknown>): void {
    const replaced = this.#spare > 0;
    if (replaced) {
      this.#spare--;
      this.giveBack(new TileBuffer());
    }
    const settled = (): void => {
      if (replaced) this.#spare++;
      else this.giveBack(turn);
    };
    ended.then(settled, settled);
  }

  giveBack(turn: TileBuffer): void {
    const [next] = this.#waiting;
    if (next) next(turn);
    else this.#free.push(turn);
  }
}
