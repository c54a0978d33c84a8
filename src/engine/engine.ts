import { asPotluckError, PotluckError } from '../errors/errors.ts';
import type { LogitMath } from '../kernels/logit-math.ts';
import { PAGE_POSITIONS } from '../pack/tile-shape.ts';
import { type BatchEntry, planBatch, withDraft } from './batch.ts';
import { MOST_DRAFTED } from './drafts.ts';
import { Evaluation, type OnRow } from './evaluation.ts';
import { type Defer, EventQueue } from './event-queue.ts';
import type { GenerateEvent, GenerateRequest, Generator } from './generate.ts';
import { Generation } from './generation.ts';
import { KvPages } from './kv-pages.ts';
import { PassCost } from './pass-cost.ts';
import type { LogitRow, PassRunner, PassSequence } from './pass-runner.ts';
import { checkPositions, checkRequest } from './request-check.ts';
import { Sampler } from './sampler.ts';
import { Scheduler } from './scheduler.ts';
import type { LogitReader, Sequence } from './sequence.ts';
import { Throughput } from './throughput.ts';

export interface EngineOptions {
  readonly runner: PassRunner;
  /** Of the backend. */
  readonly logitMath: LogitMath;
  /** Milliseconds of a clock that rises; without it the rate in stats() is null. */
  readonly clock?: () => number;
  readonly limits: {
    /** Most sequences in passes at a time. */
    readonly maxSequences: number;
    /** Most further requests that wait. */
    readonly maxQueue: number;
  };
  readonly log?: (message: string) => void;
  /** Whether a sequence that generates alone has its passes check drafts of its next tokens. Answers are the same. */
  readonly drafts?: boolean;
  /**
   * Wakes whoever waits for the events of an answer; at once unless given. With `setImmediate` the next pass is under way
   * by then, so that writing an answer takes no time from computing it.
   */
  readonly defer?: Defer;
}

export interface EngineStats {
  /** Sequences that take part in passes. */
  readonly active: number;
  readonly waiting: number;
  readonly passes: number;
  /** Prompt tokens and tokens of evaluated texts, each counted once however often it was computed. */
  readonly promptTokens: number;
  readonly generatedTokens: number;
  /** Tokens that passes had as drafts, and how many of them were drawn. */
  readonly draftedTokens: number;
  readonly acceptedTokens: number;
  /** Generated tokens a second over the last ten seconds; null without a clock. */
  readonly tokensPerSecond: number | null;
  /** How often a sequence lost its KV pages to another. */
  readonly preemptions: number;
  readonly pagesFree: number;
  readonly pagesTotal: number;
}

export interface Engine extends Generator {
  /**
   * Runs a text through the same passes as answers and hands over the logits at the positions `at` (rising), each once and in order; a
   * row is valid during the call only. Throws as generate() does, what
   * `onRow` throws (as INTERNAL), and the reason of `signal`.
   */
  evaluate(
    tokens: readonly number[],
    at: readonly number[],
    onRow: OnRow,
    signal?: AbortSignal,
  ): Promise<void>;
  stats(): EngineStats;
  /** Fails all requests with STOPPED; resolves when the pass in flight has ended. */
  close(): Promise<void>;
}

/** Plans that may break one after another, without one pass between them, before the requests fail. */
const MAX_BROKEN_PLANS = 8;

/** The engine of one hub: it makes passes out of all requests, one pass at a time. */
export function createEngine(options: EngineOptions): Engine {
  return new PassEngine(options);
}

class PassEngine implements Engine {
  readonly #runner: PassRunner;
  readonly #clock: (() => number) | null;
  readonly #log: (message: string) => void;
  readonly #defer: Defer | undefined;
  readonly #maxLive: number;
  readonly #scheduler: Scheduler;
  readonly #sampler: Sampler;
  readonly #throughput = new Throughput();
  readonly #drafts: boolean;
  readonly #cost = new PassCost();
  /** Epoch whose pages the scheduler has; null when the plan is to be waited for. */
  #epoch: number | null = null;
  /** The loop while it runs; it ends when nothing can go on. */
  #loop: Promise<void> | null = null;
  /** Aborted when the engine closes. */
  readonly #closing = new AbortController();
  #arrivals = 0;
  #passes = 0;
  #promptTokens = 0;
  #generatedTokens = 0;
  #draftedTokens = 0;
  #acceptedTokens = 0;
  #brokenPlans = 0;

  constructor({ runner, logitMath, clock, limits, log, drafts, defer }: EngineOptions) {
    for (const [name, value, least] of [
      ['maxSequences', limits.maxSequences, 1],
      ['maxQueue', limits.maxQueue, 0],
    ] as const) {
      if (!Number.isSafeInteger(value) || value < least) {
        throw new PotluckError('BAD_OPTION', `${name} is ${value}; it must be a whole number from ${least}.`);
      }
    }
    this.#runner = runner;
    this.#sampler = new Sampler(logitMath);
    this.#clock = clock ?? null;
    this.#drafts = drafts ?? false;
    this.#log = log ?? (() => undefined);
    this.#defer = defer;
    this.#maxLive = limits.maxSequences + limits.maxQueue;
    this.#scheduler = new Scheduler(limits.maxSequences);
  }

  generate(request: GenerateRequest, signal: AbortSignal): AsyncIterable<GenerateEvent> {
    return { [Symbol.asyncIterator]: () => this.#answer(request, signal) };
  }

  /** Takes a place when the first event is asked for, and gives it back however the iteration ends. */
  async *#answer(request: GenerateRequest, signal: AbortSignal): AsyncGenerator<GenerateEvent, void> {
    if (signal.aborted) return;
    checkRequest(request);
    const events = new EventQueue<GenerateEvent>(() => this.#wake(), this.#defer);
    const generation = new Generation(request, events, this.#sampler);
    const sequence = this.#enter(generation, generation.tokens, request.prompt.length);
    const cancel = (): void => {
      events.cancel();
      this.#leave(sequence);
    };
    signal.addEventListener('abort', cancel, { once: true });
    try {
      for (let event = await events.next(); event !== undefined; event = await events.next()) yield event;
    } finally {
      signal.removeEventListener('abort', cancel);
      this.#leave(sequence);
    }
  }

  async evaluate(
    tokens: readonly number[],
    at: readonly number[],
    onRow: OnRow,
    signal?: AbortSignal,
  ): Promise<void> {
    signal?.throwIfAborted();
    checkPositions(at, tokens.length);
    if (at.length === 0) return;
    // What comes after the last position asked for has no part in its logits.
    const text = tokens.slice(0, at.at(-1)! + 1);
    let cancel = (): void => undefined;
    try {
      await new Promise<void>((resolve, reject) => {
        const onEnd = (error: PotluckError | null): void => (error === null ? resolve() : reject(error));
        const sequence = this.#enter(new Evaluation(tokens, at, onRow, onEnd), text, text.length);
        cancel = () => {
          this.#leave(sequence);
          reject(signal?.reason);
        };
        signal?.addEventListener('abort', cancel, { once: true });
      });
    } finally {
      signal?.removeEventListener('abort', cancel);
    }
  }

  stats(): EngineStats {
    const scheduler = this.#scheduler;
    return {
      active: scheduler.active.length,
      waiting: scheduler.waiting.length,
      passes: this.#passes,
      promptTokens: this.#promptTokens,
      generatedTokens: this.#generatedTokens,
      draftedTokens: this.#draftedTokens,
      acceptedTokens: this.#acceptedTokens,
      tokensPerSecond: this.#clock === null ? null : this.#throughput.rate(this.#clock()),
      preemptions: scheduler.preemptions,
      pagesFree: scheduler.pagesFree,
      pagesTotal: scheduler.pagesTotal,
    };
  }

  async close(): Promise<void> {
    this.#closing.abort(stopped());
    this.#scheduler.failAll(stopped());
    await this.#loop;
  }

  #enter(reader: LogitReader, tokens: readonly number[], promptLength: number): Sequence {
    if (this.#closing.signal.aborted) throw stopped();
    const { active, waiting } = this.#scheduler;
    if (active.length + waiting.length >= this.#maxLive) {
      throw new PotluckError(
        'BUSY',
        `${active.length} requests are being answered and ${waiting.length} wait. Try again later.`,
      );
    }
    const sequence: Sequence = {
      arrival: this.#arrivals++,
      tokens,
      promptLength,
      length: promptLength,
      reader,
      state: 'waiting',
      fitted: false,
      table: null,
      cached: 0,
      counted: 0,
      lastPass: -1,
    };
    this.#scheduler.add(sequence);
    this.#wake();
    return sequence;
  }

  #leave(sequence: Sequence): void {
    if (sequence.state === 'done') return;
    this.#scheduler.remove(sequence);
    this.#wake();
  }

  /** Starts the loop where there is something to do. */
  #wake(): void {
    if (this.#loop === null && !this.#closing.signal.aborted && this.#scheduler.hasWork)
      this.#loop = this.#run();
  }

  async #run(): Promise<void> {
    await null; // so that #loop is set before the first round, and requests of one tick share it
    while (!this.#closing.signal.aborted && this.#scheduler.hasWork) {
      try {
        if (this.#epoch === null || this.#epoch !== this.#runner.epoch) await this.#newPlan();
        else await this.#round();
      } catch (error) {
        // A defect: the state of the pages is not known any more.
        this.#log(`engine: ${String(error)}`);
        this.#epoch = null;
        this.#scheduler.abandon(asPotluckError(error));
      }
    }
    this.#loop = null;
  }

  /** Waits for a plan; all sequences then start over from their tokens. */
  async #newPlan(): Promise<void> {
    this.#epoch = null;
    this.#scheduler.restart();
    try {
      await this.#runner.ready(this.#closing.signal);
    } catch (error) {
      this.#scheduler.failAll(asPotluckError(error));
      return;
    }
    const { epoch, kvPages, context, vocabulary, maxTokens, maxLogitRows } = this.#runner;
    if (Math.min(kvPages, context, vocabulary, maxTokens, maxLogitRows) < 1) {
      throw new PotluckError('INTERNAL', `Plan ${epoch} has no room for a single token.`);
    }
    const capacity = { context, kvPositions: kvPages * PAGE_POSITIONS, vocabulary };
    this.#scheduler.adopt(capacity, new KvPages(kvPages));
    this.#epoch = epoch;
  }

  async #round(): Promise<void> {
    const scheduler = this.#scheduler;
    scheduler.admit();
    scheduler.growTables();
    scheduler.turnOver(this.#runner.rotationSwitch);
    const planned = planBatch(scheduler.active, this.#runner);
    const batch = this.#drafts ? withDraft(planned, this.#runner, this.#cost) : planned;
    if (batch.length > 0) await this.#pass(batch);
    else if (scheduler.hasWork) throw new PotluckError('INTERNAL', 'Requests wait and none can go on.');
  }

  async #pass(batch: readonly BatchEntry[]): Promise<void> {
    let rows: LogitRow[];
    const before = this.#clock?.() ?? 0;
    try {
      rows = await this.#runner.run(batch.map(entry => entry.pass));
      this.#checkRows(batch, rows);
    } catch (error) {
      this.#passFailed(batch, asPotluckError(error));
      return;
    }
    if (this.#clock !== null) this.#noteCost(batch, this.#clock() - before);
    this.#brokenPlans = 0;
    this.#passes++;
    let row = 0;
    for (const { sequence, pass } of batch) {
      const at = row;
      row += pass.logitsAt.length;
      this.#takeRows(sequence, pass, rows.slice(at, row));
    }
  }

  /** A pass of few tokens with the logits of all is one of a sequence that generates. */
  #noteCost(batch: readonly BatchEntry[], milliseconds: number): void {
    const tokens = batch[0]!.pass.tokens.length;
    if (batch.length > 1 || tokens > 1 + MOST_DRAFTED || tokens !== batch[0]!.pass.logitsAt.length) return;
    this.#cost.note(tokens, milliseconds);
  }

  #takeRows(sequence: Sequence, pass: PassSequence, rows: readonly LogitRow[]): void {
    // A sequence that was cancelled during the pass is done; its rows are passed over.
    if (sequence.state !== 'active') return;
    // What lies behind the tokens of the sequence is a draft.
    let known = Math.min(pass.tokens.length, sequence.tokens.length - pass.start);
    this.#draftedTokens += pass.tokens.length - known;
    this.#advance(sequence, pass.start + known);
    for (const [i, at] of pass.logitsAt.entries()) {
      if (at >= known) return; // something else was drawn: what follows a token that is not there does not count
      this.#take(sequence, pass.start + at, rows[i]!);
      if (at < known - 1 || known === pass.tokens.length || sequence.state !== 'active') continue;
      if (sequence.tokens[pass.start + known] !== pass.tokens[known]) return;
      this.#acceptedTokens++;
      this.#advance(sequence, pass.start + ++known);
    }
  }

  #checkRows(batch: readonly BatchEntry[], rows: readonly LogitRow[]): void {
    let wanted = 0;
    for (const { pass } of batch) wanted += pass.logitsAt.length;
    if (rows.length !== wanted || rows.some(row => row.length !== this.#runner.vocabulary)) {
      throw new PotluckError(
        'INTERNAL',
        `A pass gave ${rows.length} logit rows where ${wanted} were asked for.`,
      );
    }
  }

  #passFailed(batch: readonly BatchEntry[], error: PotluckError): void {
    this.#log(`engine: a pass failed: ${error.code}: ${error.message}`);
    const planBroke = error.code === 'DEVICE_LOST' || error.code === 'NOT_READY';
    if (!planBroke) {
      for (const { sequence } of batch) this.#scheduler.fail(sequence, error);
      return;
    }
    this.#epoch = null;
    if (++this.#brokenPlans < MAX_BROKEN_PLANS) return;
    this.#brokenPlans = 0;
    this.#scheduler.failAll(error);
  }

  /** The keys and values of positions before `cached` are in the pages now. */
  #advance(sequence: Sequence, cached: number): void {
    sequence.cached = cached;
    sequence.lastPass = this.#passes;
    const prompt = Math.min(cached, sequence.promptLength);
    if (prompt <= sequence.counted) return;
    this.#promptTokens += prompt - sequence.counted;
    sequence.counted = prompt;
  }

  #take(sequence: Sequence, position: number, row: LogitRow): void {
    if (sequence.state !== 'active') return;
    const before = sequence.tokens.length;
    try {
      const outcome = sequence.reader.take(position, row);
      const drawn = sequence.tokens.length - before;
      this.#generatedTokens += drawn;
      if (this.#clock !== null) this.#throughput.add(this.#clock(), drawn);
      if (outcome === 'finished') this.#scheduler.remove(sequence);
    } catch (error) {
      this.#scheduler.fail(sequence, asPotluckError(error));
    }
  }
}

const stopped = (): PotluckError =>
  new PotluckError('STOPPED', 'The engine is stopping. Try again when it is back.');
