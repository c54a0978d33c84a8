import { PotluckError } from '../errors/errors.ts';
import type { LogitRow } from './pass-runner.ts';
import { checkTokens } from './request-check.ts';
import type { Capacity, LogitReader } from './sequence.ts';

/** Called with the logits after a position; the row is valid during the call only. */
export type OnRow = (position: number, row: LogitRow) => void;

/** Hands the logits at given positions of a fixed text to a function, each once and in order. */
export class Evaluation implements LogitReader {
  readonly paused = false;
  /** The whole text; tokens behind the last position are not computed. */
  readonly #tokens: readonly number[];
  /** Positions, rising; at least one. */
  readonly #at: readonly number[];
  readonly #onRow: OnRow;
  readonly #onEnd: (error: PotluckError | null) => void;
  /** Rows handed over. */
  #taken = 0;

  constructor(
    tokens: readonly number[],
    at: readonly number[],
    onRow: OnRow,
    onEnd: (error: PotluckError | null) => void,
  ) {
    this.#tokens = tokens;
    this.#at = at;
    this.#onRow = onRow;
    this.#onEnd = onEnd;
  }

  fit({ context, kvPositions, vocabulary }: Capacity): 'run' | 'finished' {
    checkTokens('text', this.#tokens, vocabulary);
    const room = Math.min(context, kvPositions);
    const length = this.#at.at(-1)! + 1;
    if (length > room) {
      throw new PotluckError(
        'CONTEXT_TOO_LONG',
        `The text has ${length} tokens and the context and KV memory hold ${room}. Cut the text.`,
      );
    }
    return 'run';
  }

  nextWanted(position: number): number {
    let low = this.#taken;
    let high = this.#at.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#at[middle]! < position) low = middle + 1;
      else high = middle;
    }
    return this.#at[low] ?? Number.POSITIVE_INFINITY;
  }

  /** All of its tokens are known. */
  draft(): readonly number[] {
    return [];
  }

  take(position: number, row: LogitRow): 'more' | 'finished' {
    this.#onRow(position, row);
    this.#taken++;
    if (this.#taken < this.#at.length) return 'more';
    this.#onEnd(null);
    return 'finished';
  }

  fail(error: PotluckError): void {
    this.#onEnd(error);
  }
}
