import type { Timers } from '../discovery/timers.ts';
import { asPotluckError, PotluckError } from '../errors/errors.ts';
import type { DeviceInfo } from './device.ts';
import type { Member } from './members.ts';
import type { Message } from './messages.ts';
import { type Plan, planToMessage } from './plan.ts';
import type { PlanHolder } from './plan-holder.ts';

/** A device that prepares without any progress for this long is given up. */
const STALL_MS = 30_000;
/** Every device swaps within this time: it loads what stays in memory. */
const ACTIVATE_MS = 60_000;

export type AttemptPhase = 'prepare' | 'activate';

export interface PrepareProgress {
  readonly bytes: number;
  readonly total: number;
}

/** Why an attempt ended: the devices to blame; none where it was given up. */
export interface AttemptFailure {
  readonly blamed: readonly string[];
  readonly error: PotluckError;
}

export interface PlanAttemptOptions {
  readonly plan: Plan;
  readonly self: DeviceInfo;
  readonly timers: Timers;
  readonly holder: PlanHolder;
  /** The spokes of the plan. */
  readonly spokes: readonly Member[];
  readonly changed: () => void;
}

/** One device's answer in one phase, with a deadline that progress moves. */
class Answer {
  readonly promise: Promise<number>;
  settled = false;
  readonly #timers: Timers;
  readonly #milliseconds: number;
  readonly #late: () => void;
  #timer: unknown;
  #settle: { resolve: (kvPages: number) => void; reject: (error: PotluckError) => void } | null = null;

  constructor(timers: Timers, milliseconds: number, late: string) {
    this.#timers = timers;
    this.#milliseconds = milliseconds;
    this.#late = () => this.fail(new PotluckError('DEADLINE', late));
    this.promise = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    this.#timer = timers.setTimeout(this.#late, milliseconds);
  }

  /** There was progress: the deadline starts over. */
  touch(): void {
    if (this.settled) return;
    this.#timers.clearTimeout(this.#timer);
    this.#timer = this.#timers.setTimeout(this.#late, this.#milliseconds);
  }

  succeed(kvPages: number): void {
    this.#end();
    this.#settle?.resolve(kvPages);
  }

  fail(error: PotluckError): void {
    this.#end();
    this.#settle?.reject(error);
  }

  #end(): void {
    this.settled = true;
    this.#timers.clearTimeout(this.#timer);
  }
}

/** Brings one plan to life: prepare on every device, then activate on every device. Used once. */
export class PlanAttempt {
  readonly plan: Plan;
  readonly progress = new Map<string, PrepareProgress>();
  readonly #options: PlanAttemptOptions;
  readonly #answers = new Map<string, Answer>();
  #phase: AttemptPhase = 'prepare';
  #failure: AttemptFailure | null = null;
  /** Ends the phase in which the attempt fails. */
  #giveUp: (failure: AttemptFailure) => void = () => undefined;

  constructor(options: PlanAttemptOptions) {
    this.#options = options;
    this.plan = options.plan;
  }

  get phase(): AttemptPhase {
    return this.#phase;
  }

  /** Runs both phases; resolves to the KV pages of each device in the order of the plan, or to why it failed. */
  async run(): Promise<readonly number[] | AttemptFailure> {
    const failed = new Promise<AttemptFailure>(resolve => {
      this.#giveUp = resolve;
    });
    const all = async (): Promise<readonly number[]> => {
      await this.#all('prepare', STALL_MS, () => this.#prepareSelf());
      return this.#all('activate', ACTIVATE_MS, () => this.#activateSelf());
    };
    const run = all().catch((error: unknown) => {
      // nobody else was blamed before: this device could not ask the others
      this.fail([this.#options.self.id], asPotluckError(error));
      return failed;
    });
    const result = await Promise.race([run, failed]);
    for (const answer of this.#answers.values()) if (!answer.settled) answer.fail(this.#endError());
    if (this.#failure !== null) this.#options.holder.abandon();
    return result;
  }

  /** A device of the plan broke or left, or (with nobody to blame) the attempt is of no use any more. */
  fail(blamed: readonly string[], error: PotluckError): void {
    if (this.#failure !== null) return;
    this.#failure = { blamed, error };
    this.#giveUp(this.#failure);
  }

  /** A message of a spoke; false where it is not about this attempt. */
  receive(member: Member, message: Message): boolean {
    if (!('epoch' in message) || message.epoch !== this.plan.epoch) return false;
    const answer = this.#answers.get(member.id);
    if (answer === undefined || answer.settled) return false;
    if (message.type === 'prepare-progress') {
      this.#progressed(member.id, message.bytes, message.total, answer);
    } else if (message.type === 'prepared' && this.#phase === 'prepare') {
      answer.succeed(0);
    } else if (message.type === 'active' && this.#phase === 'activate') {
      answer.succeed(message.kvPages);
    } else if (message.type === 'plan-failed') {
      answer.fail(new PotluckError(message.code, message.message));
    } else {
      return false;
    }
    return true;
  }

  /** One phase on every device; resolves to their KV pages (0 while preparing). */
  #all(phase: AttemptPhase, milliseconds: number, self: () => Promise<number>): Promise<number[]> {
    const { spokes, timers, changed } = this.#options;
    if (this.#failure !== null) return Promise.reject(this.#failure.error);
    this.#phase = phase;
    this.#answers.clear();
    changed();
    const asked = spokes.map(spoke => {
      const answer = new Answer(
        timers,
        milliseconds,
        `${spoke.device.name} did not ${phase} plan ${this.plan.epoch} in time.`,
      );
      this.#answers.set(spoke.id, answer);
      answer.promise.catch((error: unknown) => this.fail([spoke.id], asPotluckError(error)));
      return answer.promise;
    });
    for (const spoke of spokes) {
      if (phase === 'prepare') spoke.link.send({ type: 'prepare', plan: planToMessage(this.plan) });
      else spoke.link.send({ type: 'activate', epoch: this.plan.epoch });
    }
    const own = self();
    own.catch((error: unknown) => this.#selfFailed(asPotluckError(error)));
    return Promise.all([own, ...asked]);
  }

  async #prepareSelf(): Promise<number> {
    const { holder, self } = this.#options;
    await holder.prepare(this.plan, 0, self, (bytes, total) => {
      this.progress.set(self.id, { bytes, total });
      this.#options.changed();
    });
    return 0;
  }

  async #activateSelf(): Promise<number> {
    return (await this.#options.holder.activate(this.plan.epoch)).kvPages;
  }

  /** The hub cannot begin a plan when a spoke does not connect: then those that did not answer yet are to blame. */
  #selfFailed(error: PotluckError): void {
    const silent = [...this.#answers].filter(([, answer]) => !answer.settled).map(([id]) => id);
    const waitedForThem = error.code === 'DEVICE_LOST' || error.code === 'DEADLINE';
    this.fail(waitedForThem && silent.length > 0 ? silent : [this.#options.self.id], error);
  }

  #progressed(id: string, bytes: number, total: number, answer: Answer): void {
    const before = this.progress.get(id);
    if (before !== undefined && bytes <= before.bytes) return;
    this.progress.set(id, { bytes, total });
    answer.touch();
    this.#options.changed();
  }

  #endError(): PotluckError {
    return this.#failure?.error ?? new PotluckError('INTERNAL', 'The attempt is over.');
  }
}
