import type { PotluckError } from '../errors/errors.ts';
import type { PageTable } from './kv-pages.ts';
import type { PassCost } from './pass-cost.ts';
import type { LogitRow } from './pass-runner.ts';

/** What the plan in force allows one sequence. */
export interface Capacity {
  /** Most positions of a sequence. */
  readonly context: number;
  /** Positions that all KV pages together hold. */
  readonly kvPositions: number;
  readonly vocabulary: number;
}

/** What the logits of a sequence are for: an answer (Generation) or an Evaluation. */
export interface LogitReader {
  /** True while its consumer has enough to do: the sequence is left out of passes. */
  readonly paused: boolean;
  /** Called before the first pass under a plan. 'finished' where nothing is left to do. Throws CONTEXT_TOO_LONG, BAD_REQUEST. */
  fit(capacity: Capacity): 'run' | 'finished';
  /** First position from `position` on whose logits are wanted; Infinity where there is none. */
  nextWanted(position: number): number;
  /** At most `most` tokens that are likely to follow all tokens of the sequence, if it pays to have them in the next pass. */
  draft(most: number, cost: PassCost): readonly number[];
  /** Takes the logits after `position`; may append to the tokens of the sequence. Throws what makes the sequence fail. */
  take(position: number, row: LogitRow): 'more' | 'finished';
  fail(error: PotluckError): void;
}

/** Tokens that go through passes together, with their place in the KV cache. The scheduler owns the changing fields. */
export interface Sequence {
  /** Rises with every sequence: a smaller number is older. */
  readonly arrival: number;
  /** All tokens, prompt first; grows as the answer does. */
  readonly tokens: readonly number[];
  readonly promptLength: number;
  /** Positions that count for the rotation of its tokens, see PassSequence. */
  length: number;
  readonly reader: LogitReader;
  state: 'waiting' | 'active' | 'done';
  /** True once the reader was asked to fit the plan in force. */
  fitted: boolean;
  /** Pages held; null unless active. */
  table: PageTable | null;
  /** Positions whose keys and values are in those pages. */
  cached: number;
  /** Most prompt positions that were ever in them, for the statistics. */
  counted: number;
  /** Number of the last pass it was part of. */
  lastPass: number;
}
