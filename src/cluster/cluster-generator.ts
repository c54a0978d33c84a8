import type { Timers } from '../discovery/timers.ts';
import type { GenerateEvent, GenerateRequest, Generator } from '../engine/generate.ts';
import { asPotluckError, type ErrorCode, PotluckError } from '../errors/errors.ts';

/** Where requests go now. */
export interface GenerateRoute {
  /** Id of the hub. */
  readonly hubId: string;
  generate(request: GenerateRequest, signal: AbortSignal): AsyncIterable<GenerateEvent>;
}

export interface ClusterGeneratorOptions {
  /** The hub's engine, here or elsewhere; null while there is no hub. Throws STOPPED when this device stops. */
  readonly route: () => GenerateRoute | null;
  /** Calls back whenever `route` may have changed; returns what ends that. */
  readonly onRoute: (changed: () => void) => () => void;
  readonly timers: Timers;
}

/** A request that no hub takes for this long fails. The hub that took it ends it where the engine does nothing for it. */
const PATIENCE_MS = 60_000;
/** An answer whose events nobody takes for this long is ended: it holds places that others wait for. */
export const UNREAD_MS = 60_000;
/** Before the same hub is asked again. */
const PAUSE_MS = 250;
/** The hub or the plan is gone: another one continues from the tokens so far. */
const MOVES_ON: ReadonlySet<ErrorCode> = new Set(['DEVICE_LOST', 'NOT_READY', 'STOPPED']);

interface RouteWatch {
  readonly signal: AbortSignal;
  /** An event goes to the reader now. */
  gives(): void;
  /** The reader asks for the next one. Throws DEADLINE where that came too late. */
  taken(): void;
  end(): void;
}

/**
 * Answers requests wherever the hub is. When the hub changes or is lost in the middle, the prompt and the tokens so far go
 * to the next hub, and the answer goes on: the same tokens come, for they depend on the request alone.
 */
export class ClusterGenerator implements Generator {
  readonly #options: ClusterGeneratorOptions;

  constructor(options: ClusterGeneratorOptions) {
    this.#options = options;
  }

  async *generate(request: GenerateRequest, signal: AbortSignal): AsyncGenerator<GenerateEvent> {
    const { timers } = this.#options;
    const generated = [...request.generated];
    let deadline = timers.now() + PATIENCE_MS;
    let mayWaitAnew = true;
    while (!signal.aborted) {
      const route = this.#options.route();
      let error = new PotluckError('NOT_READY', 'The cluster has no hub. Look at: potluck status');
      if (route !== null) {
        const watch = this.#watch(route, signal);
        try {
          for await (const event of route.generate({ ...request, generated }, watch.signal)) {
            if (event.type === 'token') generated.push(event.id);
            deadline = timers.now() + PATIENCE_MS;
            mayWaitAnew = true;
            if (event.type === 'finish') return yield event;
            watch.gives();
            yield event;
            watch.taken();
          }
        } catch (thrown) {
          error = asPotluckError(thrown);
          if (!MOVES_ON.has(error.code)) throw error;
        } finally {
          watch.end();
        }
      }
      if (signal.aborted) return;
      // the last token came, and then the hub was lost
      if (generated.length > request.generated.length && generated.length >= request.maxTokens) {
        yield { type: 'finish', reason: 'length' };
        return;
      }
      // it may have waited long for its model's turn; but hubs that come and go do not keep a reader waiting for ever
      if (route !== null && this.#hubId() !== route.hubId && mayWaitAnew) {
        mayWaitAnew = false;
        deadline = timers.now() + PATIENCE_MS;
      }
      if (timers.now() >= deadline) throw error;
      await this.#pause(route, signal);
    }
  }

  /** A signal that aborts with `signal`, when another device is hub, or when an event that was given is not taken. */
  #watch(route: GenerateRoute, signal: AbortSignal): RouteWatch {
    const { timers, onRoute } = this.#options;
    const ender = new AbortController();
    const end = onRoute(() => {
      if (this.#hubId() !== route.hubId) ender.abort();
    });
    let timer: unknown = null;
    return {
      signal: AbortSignal.any([signal, ender.signal]),
      gives: () => {
        timer = timers.setTimeout(() => ender.abort(unread()), UNREAD_MS);
      },
      taken: () => {
        timers.clearTimeout(timer);
        if (ender.signal.reason instanceof PotluckError) throw ender.signal.reason;
      },
      end: () => {
        timers.clearTimeout(timer);
        end();
      },
    };
  }

  /** Until there is another hub than that of `route`, or a moment has passed, or `signal` aborts. */
  #pause(route: GenerateRoute | null, signal: AbortSignal): Promise<void> {
    if (this.#hubId() !== (route?.hubId ?? null)) return Promise.resolve();
    const { timers, onRoute } = this.#options;
    return new Promise(resolve => {
      const done = (): void => {
        timers.clearTimeout(timer);
        signal.removeEventListener('abort', done);
        end();
        resolve();
      };
      const timer = timers.setTimeout(done, PAUSE_MS);
      const end = onRoute(() => {
        if (this.#hubId() !== (route?.hubId ?? null)) done();
      });
      signal.addEventListener('abort', done, { once: true });
    });
  }

  /** Null also when this device stops: the next turn of `generate` then throws. */
  #hubId(): string | null {
    try {
      return this.#options.route()?.hubId ?? null;
    } catch (error) {
      if (asPotluckError(error).code === 'STOPPED') return null;
      throw error;
    }
  }
}

const unread = (): PotluckError =>
  new PotluckError(
    'DEADLINE',
    `The answer was not read for ${UNREAD_MS / 1000} s and was ended, so that others go on. Ask again, and read it as it comes.`,
  );
