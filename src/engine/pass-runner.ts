/** One trip of a batch of tokens through all layers of all devices, as the engine sees it. */

export interface PassSequence {
  /** KV pages of the sequence, by position / PAGE_POSITIONS; covers every position of the pass. */
  readonly pages: Int32Array;
  /** Positions that count for the rotation of its tokens; those behind it count as many as they are. */
  readonly length: number;
  /** Position of its first token in this pass. */
  readonly start: number;
  readonly tokens: readonly number[];
  /** Which of these tokens' logits are wanted (indices into `tokens`, rising). */
  readonly logitsAt: readonly number[];
}

/** Logits of one asked position; [vocabulary] float32, valid until the next pass. */
export type LogitRow = Float32Array;

/** What passes have done so far. */
export interface EngineWork {
  /** Calls of kernels that ended; only rises. A pass makes many, one where its device is alone with its weights in memory. */
  readonly calls: number;
  /** Kernels run now; they wait for nobody. */
  readonly computing: boolean;
}

export interface PassRunner {
  /** Changes whenever keys and values of earlier passes are gone (another plan): sequences then start over from
   *  their tokens. */
  readonly epoch: number;
  /** Most tokens of one pass, most logit rows, pages that every device has, most positions of a sequence. */
  readonly maxTokens: number;
  readonly maxLogitRows: number;
  readonly kvPages: number;
  readonly context: number;
  readonly vocabulary: number;
  /** Sequences longer than this rotate all their keys otherwise (see rotationSwitch); Infinity where none does. */
  readonly rotationSwitch: number;
  /** Runs one pass; one at a time. Returns rows in the order of sequences and their logitsAt.
   *  Rejects with DEVICE_LOST or NOT_READY when the plan changed or broke: wait for `ready()`, then start over. */
  run(sequences: readonly PassSequence[]): Promise<LogitRow[]>;
  /** Resolves when a plan is active; rejects with NOT_READY after a deadline, and with the reason of `signal`. */
  ready(signal: AbortSignal): Promise<void>;
}
