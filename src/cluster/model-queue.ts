import type { Timers } from '../discovery/timers.ts';
import type { GenerateEvent, GenerateRequest, Generator } from '../engine/generate.ts';
import type { EngineWork } from '../engine/pass-runner.ts';
import { PotluckError } from '../errors/errors.ts';

/** Most requests that wait for their model's turn. */
export const MOST_WAITING = 64;
/** A request waits this long for its model's turn; requests that are being answered finish first. */
export const TURN_MS = 300_000;
/**
 * An answer ends where the engine does nothing for this long while a token is waited for. What a pass waits for, and the wait for a plan, has
 * deadlines of its own that are shorter; a pass that goes on may take as long as it takes.
 */
export const STALL_MS = 120_000;

export interface ModelQueueOptions {
  /** The engine; it runs whatever plan is active. */
  readonly generator: Generator;
  /** What it has done so far. */
  readonly work: () => EngineWork;
  readonly timers: Timers;
  /** Id of the model that this hub makes plans for; null where it has none. */
  readonly target: () => string | null;
  /** Makes the cluster compute another model; false where no device has it. This device may be hub no more after that. */
  readonly choose: (modelId: string) => boolean;
  /** Id of the model that was computed last; null: none yet. */
  readonly previous: () => string | null;
}

/** A request: it waits, or it is in the engine. */
interface Entry {
  readonly modelId: string;
  /** Aborted where the engine must not go on with it. */
  readonly ender: AbortController;
}

interface Waiting extends Entry {
  /** Ends the wait. */
  readonly settle: (end: 'enter' | 'leave' | PotluckError) => void;
}

/**
 * The hub's door to the engine where a cluster has several models, of which one is computed at a time. A request for the model that is
 * being served goes in at once, unless one for another model waits; then it waits behind that. When the model changes, all that
 * wait for the new one go in together, and what comes later waits behind the others: no model starves, and the cluster changes
 * model at most once for each that waits.
 */
export class ModelQueue {
  readonly #options: ModelQueueOptions;
  readonly #waiting: Waiting[] = [];
  readonly #running = new Set<Entry>();
  /** Model of the plan that passes run on, or ran on last; null before the first. */
  #served: string | null = null;

  constructor(options: ModelQueueOptions) {
    this.#options = options;
  }

  /**
   * As Generator, for one model. Also throws BUSY (queue full, or its turn did not come), UNKNOWN_MODEL, NOT_READY (another device or plan
   * takes over: ask again with the tokens so far), DEADLINE (the engine does nothing), or why its model cannot be loaded.
   */
  async *generate(
    modelId: string,
    request: GenerateRequest,
    signal: AbortSignal,
  ): AsyncGenerator<GenerateEvent> {
    if (signal.aborted) return;
    const entry: Entry = { modelId, ender: new AbortController() };
    if (this.#mayEnter(modelId)) this.#running.add(entry);
    else await this.#turn(entry, signal);
    let unwatch = (): void => undefined;
    // at once: who does not read the answer does not ask for its end either
    const leave = (): void => this.#leave(entry);
    signal.addEventListener('abort', leave, { once: true });
    try {
      if (signal.aborted) return;
      const both = AbortSignal.any([signal, entry.ender.signal]);
      unwatch = this.#watch(entry);
      for await (const event of this.#options.generator.generate(request, both)) {
        unwatch();
        yield event;
        unwatch = this.#watch(entry);
      }
      entry.ender.signal.throwIfAborted();
    } finally {
      unwatch();
      signal.removeEventListener('abort', leave);
      this.#leave(entry);
    }
  }

  /**
   * Runs something else on the model that plans are made for, in its turn as requests are; no other model is chosen before it ends. Its signal aborts
   * with `signal`, or where it must not go on. Rejects as `generate` does, or as `work`.
   */
  async hold<T>(work: (signal: AbortSignal) => Promise<T>, signal: AbortSignal): Promise<T> {
    signal.throwIfAborted();
    const modelId = this.#options.target() ?? '';
    const entry: Entry = { modelId, ender: new AbortController() };
    if (this.#mayEnter(modelId)) this.#running.add(entry);
    else await this.#turn(entry, signal);
    const unwatch = this.#watch(entry);
    try {
      signal.throwIfAborted();
      return await work(AbortSignal.any([signal, entry.ender.signal]));
    } finally {
      unwatch();
      this.#leave(entry);
    }
  }

  #leave(entry: Entry): void {
    this.#running.delete(entry);
    this.#next();
  }

  /** A plan is about to be served: nothing that runs may go on with another model's plan. */
  begins(modelId: string): void {
    this.#served = modelId;
    const reason = new PotluckError('NOT_READY', 'The cluster computes another model now.');
    this.#end(
      [...this.#running].filter(running => running.modelId !== modelId),
      reason,
    );
  }

  /** A plan is being served: all that wait for its model go in. */
  serving(modelId: string): void {
    for (const waiting of this.#waiting.filter(each => each.modelId === modelId)) waiting.settle('enter');
    this.#next();
  }

  /** A model cannot be loaded on this device: who waits for it is told, and the next model has its turn. */
  failed(modelId: string, error: PotluckError): void {
    const waiting = this.#waiting.filter(each => each.modelId === modelId);
    for (const each of waiting) each.settle(error);
    const previous = this.#options.previous();
    if (this.#waiting.length > 0) this.#next();
    else if (waiting.length > 0 && previous !== null && previous !== modelId) this.#options.choose(previous);
  }

  /** This device is hub no more. */
  stop(): void {
    this.#served = null;
    const reason = new PotluckError('NOT_READY', 'Another device is hub now.');
    for (const waiting of [...this.#waiting]) waiting.settle(reason);
    this.#end([...this.#running], reason);
  }

  /** None of them is in the engine from now on. */
  #end(entries: readonly Entry[], reason: PotluckError): void {
    for (const entry of entries) {
      entry.ender.abort(reason);
      this.#running.delete(entry);
    }
  }

  #mayEnter(modelId: string): boolean {
    return modelId === this.#served && modelId === this.#options.target() && this.#waiting.length === 0;
  }

  /** Ends `entry` where the engine does nothing from now on; returns what ends that. */
  #watch({ ender }: Entry): () => void {
    const { timers, work } = this.#options;
    let before = work().calls;
    const look = (): void => {
      const { calls, computing } = work();
      const works = computing || calls !== before;
      before = calls;
      if (works) timer = timers.setTimeout(look, STALL_MS);
      else ender.abort(stalled());
    };
    let timer = timers.setTimeout(look, STALL_MS);
    return () => timers.clearTimeout(timer);
  }

  /** Changes the model once nothing runs and the first in the queue wants another. */
  #next(): void {
    const first = this.#waiting[0];
    if (first === undefined) return;
    const target = this.#options.target();
    if (first.modelId === target) {
      if (first.modelId === this.#served) this.serving(first.modelId);
      return;
    }
    if (this.#running.size > 0) return;
    // it is being loaded for somebody
    if (target !== this.#served && this.#waiting.some(each => each.modelId === target)) return;
    if (this.#options.choose(first.modelId)) return;
    first.settle(new PotluckError('UNKNOWN_MODEL', 'No device of the cluster has this model any more.'));
    this.#next();
  }

  /** Resolves when the entry is in the engine, or its request is gone. */
  #turn(entry: Entry, signal: AbortSignal): Promise<void> {
    if (this.#waiting.length >= MOST_WAITING)
      throw new PotluckError('BUSY', `${MOST_WAITING} requests wait for their model. Try again later.`);
    const { timers } = this.#options;
    return new Promise((resolve, reject) => {
      const settle: Waiting['settle'] = end => {
        const at = this.#waiting.indexOf(waiting);
        if (at < 0) return;
        this.#waiting.splice(at, 1);
        timers.clearTimeout(timer);
        signal.removeEventListener('abort', gone);
        // in the same step, so that nobody sees an idle engine in between
        if (end === 'enter') this.#running.add(entry);
        if (end instanceof PotluckError) reject(end);
        else resolve();
      };
      const leave = (end: 'leave' | PotluckError): void => {
        settle(end);
        this.#next();
      };
      const gone = (): void => leave('leave');
      const timer = timers.setTimeout(() => leave(late()), TURN_MS);
      const waiting: Waiting = { ...entry, settle };
      this.#waiting.push(waiting);
      signal.addEventListener('abort', gone, { once: true });
      this.#next();
    });
  }
}

const late = (): PotluckError =>
  new PotluckError(
    'BUSY',
    `The model did not have its turn within ${TURN_MS / 1000} s: others are being answered, or it is still being loaded. Try again later.`,
  );

const stalled = (): PotluckError =>
  new PotluckError(
    'DEADLINE',
    `The hub computed nothing for ${STALL_MS / 1000} s. Look at the hub's log; start it again where it stays so.`,
  );
