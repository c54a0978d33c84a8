import type { Timers } from '../discovery/timers.ts';
import { asPotluckError, type ErrorCode, PotluckError } from '../errors/errors.ts';
import type { ClusterHost } from './cluster-host.ts';
import { type DeviceInfo, deviceLabel } from './device.ts';
import { Failures } from './failures.ts';
import { makePlan } from './make-plan.ts';
import type { Member } from './members.ts';
import type { Message } from './messages.ts';
import { MAX_PLAN_DEVICES, type Plan } from './plan.ts';
import { type AttemptFailure, PlanAttempt } from './plan-attempt.ts';
import type { PlanHolder } from './plan-holder.ts';

/** Changes that come together make one plan. */
const DEBOUNCE_MS = 150;
/** When a device of the active plan is gone nothing is served: waits only for others that go with it. */
const BROKEN_DEBOUNCE_MS = 20;

/** Another model is wanted, and nothing runs. */
const SWITCH_DEBOUNCE_MS = 5;
/** These pass, or are another device's trouble: whoever waits for the model waits on. */
const PASSING: ReadonlySet<ErrorCode> = new Set([
  'NOT_READY',
  'DEVICE_LOST',
  'DEADLINE',
  'STOPPED',
  'PROTOCOL',
]);

export interface CoordinatorOptions {
  readonly self: () => DeviceInfo;
  readonly timers: Timers;
  readonly holder: PlanHolder;
  readonly host: ClusterHost;
  /** Id of the model to make plans for; null where this device holds none. */
  readonly model: () => string | null;
  /** Called before passes may run on a plan, and once they may. */
  readonly begins: (plan: Plan) => void;
  readonly serves: (plan: Plan) => void;
  /** This device cannot load the model, or no plan can be made for it. */
  readonly modelFailed: (modelId: string, error: PotluckError) => void;
  /** Members that follow this device. */
  readonly followers: () => readonly Member[];
  /** Members that said goodbye and wait to be let go. */
  readonly leavers: () => readonly Member[];
  /** Every epoch that this device has heard of is below it. */
  readonly nextEpoch: () => number;
  /** Something in the view of this device is another. */
  readonly changed: () => void;
}

/** The hub's work: keeps a plan active that fits the devices that follow it. */
export class Coordinator {
  readonly failures: Failures;
  readonly #options: CoordinatorOptions;
  #running = false;
  #attempt: PlanAttempt | null = null;
  /** The plan that passes run on. */
  #serving: Plan | null = null;
  /** What `#serving` was made from; see #signature. */
  #servingFor: string | null = null;
  #looking = false;
  #lookAgain = false;
  #timer: unknown = null;
  #timerAt = 0;
  /** Why there is no plan, where none can be made. */
  #trouble: PotluckError | null = null;
  readonly #letGo = new WeakSet<Member>();

  constructor(options: CoordinatorOptions) {
    this.#options = options;
    this.failures = new Failures(() => options.timers.now());
  }

  get attempt(): PlanAttempt | null {
    return this.#attempt;
  }

  get serving(): Plan | null {
    return this.#serving;
  }

  get trouble(): PotluckError | null {
    return this.#trouble;
  }

  /** Devices of the larger of the plan that serves and the one on its way; 0 where this device is no hub. */
  get size(): number {
    if (!this.#running) return 0;
    return Math.max(this.#serving?.devices.length ?? 0, this.#attempt?.plan.devices.length ?? 0, 1);
  }

  /** This device is hub from now on. */
  start(): void {
    if (this.#running) return;
    this.#running = true;
    this.#schedule(DEBOUNCE_MS);
  }

  /** Another device is hub. What is active stays until that hub's plan replaces it. */
  stop(): void {
    if (!this.#running) return;
    this.#running = false;
    this.#serving = null;
    this.#servingFor = null;
    this.#options.timers.clearTimeout(this.#timer);
    this.#timer = null;
    this.#attempt?.fail([], new PotluckError('NOT_READY', 'Another device is hub now.'));
  }

  /** Followers came, went over to another hub, or changed; or another model is wanted. */
  update(): void {
    if (!this.#running) return;
    this.#dropUseless();
    const isOther = this.#serving !== null && this.#serving.modelId !== this.#options.model();
    this.#schedule(isOther ? SWITCH_DEBOUNCE_MS : DEBOUNCE_MS);
  }

  /** A member's link ended. */
  memberLeft(member: Member, error: PotluckError): void {
    if (!this.#running) return;
    const isIn = (plan: Plan | undefined): boolean => plan?.devices.some(d => d.id === member.id) ?? false;
    if (isIn(this.#attempt?.plan)) this.#attempt?.fail([member.id], error);
    if (isIn(this.#serving ?? undefined)) this.#broken(error);
    else this.update();
  }

  /** A device noticed that the plan of this epoch does not work any more; `blamed` is null where it cannot tell whom. */
  planBroken(epoch: number, blamed: string | null, error: PotluckError): void {
    if (!this.#running || this.#serving?.epoch !== epoch) return;
    const device = this.#serving.devices.find(d => d.id === blamed);
    if (device !== undefined && device.id !== this.#options.self().id)
      this.#blame(device.id, device.name, error);
    this.#broken(error);
  }

  /** A message of `member`; false where it is not for a hub. */
  receive(member: Member, message: Message): boolean {
    if (this.#attempt?.receive(member, message)) return true;
    if (message.type === 'plan-failed') {
      // who is not in it has no say
      if (this.#serving?.devices.some(({ id }) => id === member.id))
        this.planBroken(message.epoch, member.id, new PotluckError(message.code, message.message));
      return true;
    }
    // answers to a plan that was given up
    return ['prepared', 'prepare-progress', 'active'].includes(message.type);
  }

  /** A plan that is still being prepared is given up where its model is not wanted, or a device does not follow, any more. */
  #dropUseless(): void {
    const attempt = this.#attempt;
    if (attempt?.phase !== 'prepare') return;
    if (attempt.plan.modelId !== this.#options.model()) {
      attempt.fail([], new PotluckError('NOT_READY', 'Another model is wanted now.'));
      return;
    }
    const followers = new Set(this.#options.followers().map(m => m.id));
    const gone = attempt.plan.devices.slice(1).find(d => !followers.has(d.id));
    if (gone !== undefined) attempt.fail([], new PotluckError('DEVICE_LOST', `${deviceLabel(gone)} leaves.`));
  }

  #broken(error: PotluckError): void {
    this.#serving = null;
    this.#servingFor = null;
    this.#options.host.log.warn(`The plan is broken: ${error.message}`);
    void this.#options.holder.deactivate(error);
    this.#schedule(BROKEN_DEBOUNCE_MS);
    this.#options.changed();
  }

  /** Looks at the plan in `milliseconds`, or earlier where that is set already. */
  #schedule(milliseconds: number): void {
    const { timers } = this.#options;
    const at = timers.now() + milliseconds;
    if (this.#timer !== null && this.#timerAt <= at) return;
    timers.clearTimeout(this.#timer);
    this.#timerAt = at;
    this.#timer = timers.setTimeout(() => {
      this.#timer = null;
      this.#look();
    }, milliseconds);
  }

  /** One loop at a time; a look that is asked for while it runs comes after it. */
  #look(): void {
    if (this.#looking) {
      this.#lookAgain = true;
      return;
    }
    this.#looking = true;
    void this.#replan().finally(() => {
      this.#looking = false;
      if (!this.#lookAgain) return;
      this.#lookAgain = false;
      this.#look();
    });
  }

  /** Makes plans until one fits. */
  async #replan(): Promise<void> {
    const { failures } = this;
    let wait: number | null = null;
    while (this.#running) {
      // Before members are chosen: one that is left out now must be looked at again, even if that is over a moment later.
      wait = failures.nextEndMs;
      const members = this.#wanted();
      const signature = this.#signature(members);
      const selfReady = failures.isOver(this.#options.self().id);
      if (signature === this.#servingFor || !selfReady) break;
      const plan = this.#plan(members);
      if (plan === null) break;
      await this.#try(plan, members, signature);
    }
    if (!this.#running) return;
    this.#sayGoodbyes();
    if (wait !== null) this.#schedule(Math.max(1, wait));
  }

  /** The spokes of the next plan. */
  #wanted(): Member[] {
    const followers = this.#options.followers().filter(member => this.failures.isOver(member.id));
    return followers.sort((a, b) => (a.id < b.id ? -1 : 1)).slice(0, MAX_PLAN_DEVICES - 1);
  }

  /** Everything that a plan depends on. */
  #signature(members: readonly Member[]): string {
    const devices = [this.#options.self(), ...members.map(m => m.device)];
    const facts = devices.map(d => [d.id, d.startedAt, d.share, d.memoryBytes, d.host, d.linkPort]);
    return JSON.stringify([this.#options.model(), facts]);
  }

  #plan(members: readonly Member[]): Plan | null {
    const { self, host, holder, nextEpoch, changed } = this.#options;
    const modelId = this.#options.model();
    if (modelId === null) return null;
    try {
      const plan = makePlan({
        epoch: nextEpoch(),
        modelId,
        tiles: host.manifestFor(modelId).tiles,
        devices: [self(), ...members.map(m => m.device)],
        previous: holder.latest,
      });
      this.#trouble = null;
      return plan;
    } catch (error) {
      const trouble = asPotluckError(error);
      this.#options.modelFailed(modelId, trouble);
      if (this.#trouble?.message === trouble.message) return null;
      host.log.warn(trouble.message);
      this.#trouble = trouble;
      changed();
      return null;
    }
  }

  async #try(plan: Plan, spokes: readonly Member[], signature: string): Promise<void> {
    const { self, timers, holder, host, changed } = this.#options;
    const attempt = new PlanAttempt({
      plan,
      self: self(),
      timers,
      holder,
      spokes,
      changed: () => {
        // from here on the old plan is being replaced
        if (this.#attempt?.phase === 'activate') this.#serving = null;
        changed();
      },
    });
    this.#attempt = attempt;
    const result = await attempt.run();
    this.#attempt = null;
    if ('blamed' in result) {
      this.#failed(plan, result, attempt.phase === 'activate');
      return;
    }
    if (!this.#running) return;
    this.#options.begins(plan);
    try {
      await holder.serve(plan, result);
    } catch (error) {
      this.#failed(plan, { blamed: [self().id], error: asPotluckError(error) }, true);
      return;
    }
    if (!this.#running || holder.active !== plan) return;
    this.#serving = plan;
    this.#servingFor = signature;
    this.#options.serves(plan);
    host.log.info(`Plan ${plan.epoch} is active on ${plan.devices.map(deviceLabel).join(', ')}.`);
    this.#retire(plan);
    const lost = spokes.find(spoke => !spoke.link.isOpen);
    if (lost !== undefined) {
      this.#broken(new PotluckError('DEVICE_LOST', `${deviceLabel(lost.device)} left as the plan began.`));
    }
    changed();
  }

  #failed(plan: Plan, { blamed, error }: AttemptFailure, wasActivating: boolean): void {
    for (const id of blamed) {
      const name = plan.devices.find(d => d.id === id)?.name ?? id;
      this.#blame(id, name, error);
    }
    if (!this.#running) return;
    // some devices have the new plan and some the old one: neither works
    if (wasActivating) {
      this.#serving = null;
      this.#servingFor = null;
    }
    if (blamed.includes(this.#options.self().id) && !PASSING.has(error.code))
      this.#options.modelFailed(plan.modelId, error);
    this.#options.changed();
  }

  #blame(id: string, name: string, error: PotluckError): void {
    const failure = this.failures.add({ id, name }, error);
    const seconds = Math.round(failure.until - failure.at) / 1000;
    this.#options.host.log.warn(
      `${deviceLabel({ id, name })} is left out for ${seconds} s: ${error.message}`,
    );
  }

  /** Devices that are not in the plan give the memory of an earlier one back. */
  #retire(plan: Plan): void {
    const inPlan = new Set(plan.devices.map(d => d.id));
    for (const member of [...this.#options.followers(), ...this.#options.leavers()]) {
      if (!inPlan.has(member.id)) member.link.send({ type: 'retire', epoch: plan.epoch });
    }
  }

  #sayGoodbyes(): void {
    if (this.#serving === null) return;
    const inPlan = new Set(this.#serving.devices.map(d => d.id));
    for (const leaver of this.#options.leavers()) {
      if (inPlan.has(leaver.id) || this.#letGo.has(leaver)) continue;
      this.#letGo.add(leaver);
      leaver.link.send({ type: 'left' });
    }
  }
}
