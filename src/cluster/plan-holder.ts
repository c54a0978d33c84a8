import { asPotluckError, PotluckError } from '../errors/errors.ts';
import type { ClusterHost, HubAddress } from './cluster-host.ts';
import type { Plan } from './plan.ts';

interface Prepared {
  readonly plan: Plan;
  readonly index: number;
}

/**
 * This device's own plan, whichever role it has: what it prepares and what is active. Calls to the host that swap or end a
 * plan run one after another, and a newer plan ends the preparing of an older one.
 */
export class PlanHolder {
  readonly #host: ClusterHost;
  #preparing: AbortController | null = null;
  #prepared: Prepared | null = null;
  #activating: AbortController | null = null;
  #latest: Plan | null = null;
  #active: Plan | null = null;
  #last: Promise<unknown> = Promise.resolve();

  constructor(host: ClusterHost) {
    this.#host = host;
  }

  /** The plan that this device computes; null where none is, or while it swaps. */
  get active(): Plan | null {
    return this.#active;
  }

  /** The last plan that was active here, in whichever role. */
  get latest(): Plan | null {
    return this.#latest;
  }

  /** Prepares `plan`; an older one that is still preparing rejects with NOT_READY. */
  async prepare(
    plan: Plan,
    index: number,
    hub: HubAddress,
    onProgress: (bytes: number, total: number) => void,
  ): Promise<void> {
    this.abandon();
    const own = new AbortController();
    this.#preparing = own;
    try {
      await this.#host.prepare(plan, index, hub, onProgress, own.signal);
      own.signal.throwIfAborted();
      this.#prepared = { plan, index };
    } finally {
      if (this.#preparing === own) this.#preparing = null;
    }
  }

  /** Drops what is being prepared, is prepared, or is on its way to be active. */
  abandon(): void {
    const reason = new PotluckError('NOT_READY', 'Another plan came before this one was active.');
    this.#preparing?.abort(reason);
    this.#preparing = null;
    this.#prepared = null;
    this.#activating?.abort(reason);
  }

  /** Swaps to the prepared plan of this epoch. Rejects with PROTOCOL where there is none, or as the host does. */
  activate(epoch: number): Promise<{ kvPages: number }> {
    const next = this.#prepared;
    this.#prepared = null;
    if (next?.plan.epoch !== epoch) {
      return Promise.reject(new PotluckError('PROTOCOL', `Plan ${epoch} is not prepared on this device.`));
    }
    const own = new AbortController();
    this.#activating = own;
    return this.#inTurn(async () => {
      own.signal.throwIfAborted();
      this.#active = null;
      const result = await this.#host.activate(next.plan, next.index, own.signal);
      this.#active = next.plan;
      this.#latest = next.plan;
      return result;
    }).finally(() => {
      if (this.#activating === own) this.#activating = null;
    });
  }

  /** Lets passes run on the active plan (hub only). */
  serve(plan: Plan, kvPages: readonly number[]): Promise<void> {
    return this.#inTurn(() => this.#host.serve(plan, kvPages));
  }

  /** Ends the active plan, if any, after what is running now. Failures are logged: there is nobody else to tell. */
  deactivate(reason: PotluckError): Promise<void> {
    this.#active = null;
    return this.#inTurn(async () => {
      this.#active = null;
      await this.#host.deactivate(reason).catch((error: unknown) => {
        this.#host.log.warn(`The plan could not be taken down: ${asPotluckError(error).message}`);
      });
    });
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => undefined);
    return result;
  }
}
