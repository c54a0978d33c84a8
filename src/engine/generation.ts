import { PotluckError } from '../errors/errors.ts';
import { Drafts } from './drafts.ts';
import type { EventQueue } from './event-queue.ts';
import type { GenerateEvent, GenerateRequest } from './generate.ts';
import type { PassCost } from './pass-cost.ts';
import type { LogitRow } from './pass-runner.ts';
import { checkTokens } from './request-check.ts';
import type { Sampler } from './sampler.ts';
import type { Capacity, LogitReader } from './sequence.ts';
import { needsHistory, TokenHistory } from './token-history.ts';

/** Events that wait for a slow consumer before its sequence pauses. */
export const EVENTS_AHEAD = 64;

/** Draws the answer to one request, token by token. */
export class Generation implements LogitReader {
  /** Prompt and answer so far. */
  readonly tokens: number[];
  readonly #request: GenerateRequest;
  readonly #events: EventQueue<GenerateEvent>;
  readonly #sampler: Sampler;
  readonly #history: TokenHistory | null;
  readonly #drafts = new Drafts();
  /** Most tokens of the answer, by the request and by the plan in force. */
  #limit: number;

  constructor(request: GenerateRequest, events: EventQueue<GenerateEvent>, sampler: Sampler) {
    this.tokens = [...request.prompt, ...request.generated];
    this.#request = request;
    this.#events = events;
    this.#sampler = sampler;
    this.#limit = request.maxTokens;
    this.#history = needsHistory(request.sampling) ? new TokenHistory() : null;
    for (const token of request.prompt) this.#history?.addPrompt(token);
    for (const token of request.generated) this.#history?.addOutput(token);
  }

  get paused(): boolean {
    return this.#events.size >= EVENTS_AHEAD;
  }

  /** Tokens of the answer so far. */
  get #generated(): number {
    return this.tokens.length - this.#request.prompt.length;
  }

  fit({ context, kvPositions, vocabulary }: Capacity): 'run' | 'finished' {
    const { prompt, generated, sampling } = this.#request;
    checkTokens('prompt', prompt, vocabulary);
    checkTokens('generated', generated, vocabulary);
    checkTokens('logit bias', [...sampling.logitBias.keys()], vocabulary);
    if (prompt.length + 1 > context) {
      throw new PotluckError(
        'CONTEXT_TOO_LONG',
        `The prompt has ${prompt.length} tokens and the context holds ${context}, one of them for the answer. Shorten the prompt.`,
      );
    }
    if (prompt.length > kvPositions) {
      throw new PotluckError(
        'CONTEXT_TOO_LONG',
        `The prompt has ${prompt.length} tokens and the KV memory holds ${kvPositions}. Shorten the prompt or give the devices more memory.`,
      );
    }
    // The last token of an answer needs no KV position: nothing follows it.
    const room = Math.min(context - prompt.length, kvPositions - prompt.length + 1);
    this.#limit = Math.min(this.#request.maxTokens, room);
    if (this.#generated < this.#limit) return 'run';
    return this.#finish('length');
  }

  nextWanted(position: number): number {
    const last = this.tokens.length - 1;
    return position <= last ? last : Number.POSITIVE_INFINITY;
  }

  draft(most: number, cost: PassCost): readonly number[] {
    // The last token of an answer is drawn behind a pass, not in it.
    return this.#drafts.next(this.tokens, Math.min(most, this.#limit - this.#generated - 1), cost);
  }

  take(_position: number, row: LogitRow): 'more' | 'finished' {
    const id = this.#sampler.sample(row, this.#request.sampling, this.#history, this.#generated);
    if (this.#request.stopTokens.includes(id)) return this.#finish('stop');
    this.tokens.push(id);
    this.#drafts.drawn(id);
    this.#history?.addOutput(id);
    this.#events.push({ type: 'token', id });
    return this.#generated < this.#limit ? 'more' : this.#finish('length');
  }

  #finish(reason: 'stop' | 'length'): 'finished' {
    this.#events.push({ type: 'finish', reason });
    this.#events.end();
    return 'finished';
  }

  fail(error: PotluckError): void {
    this.#events.end(error);
  }
}
