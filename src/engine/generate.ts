/** What the engine does for a request. The same interface is served locally by the hub and remotely by a spoke. */

export interface Sampling {
  /** 0 is greedy. */
  readonly temperature: number;
  readonly topP: number;
  /** 0 is off. */
  readonly topK: number;
  readonly minP: number;
  /** Seed of the counter-based generator: token n of a request depends on (seed, n) only, so a request can move to
   *  another hub in the middle. */
  readonly seed: number;
  /** 1 is off. */
  readonly repetitionPenalty: number;
  /** 0 is off. */
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  /** Added to the logit of a token id. */
  readonly logitBias: ReadonlyMap<number, number>;
}

/** Always the likeliest token. */
export const GREEDY: Sampling = {
  temperature: 0,
  topP: 1,
  topK: 0,
  minP: 0,
  seed: 0,
  repetitionPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0,
  logitBias: new Map(),
};

export interface GenerateRequest {
  readonly prompt: readonly number[];
  /** Tokens already generated (a request that moved): counted as output for penalties and the seed counter. */
  readonly generated: readonly number[];
  /** Most tokens of the whole answer, `generated` included. */
  readonly maxTokens: number;
  readonly stopTokens: readonly number[];
  readonly sampling: Sampling;
}

export type GenerateEvent =
  | { readonly type: 'token'; readonly id: number }
  /** The last event. 'stop': a stop token was drawn (it is not emitted). 'length': maxTokens reached. */
  | { readonly type: 'finish'; readonly reason: 'stop' | 'length' };

export interface Generator {
  /** Ends early, without 'finish', when `signal` aborts. Throws PotluckError: CONTEXT_TOO_LONG, BUSY, NOT_READY,
   *  DEVICE_LOST, STOPPED. */
  generate(request: GenerateRequest, signal: AbortSignal): AsyncIterable<GenerateEvent>;
}
