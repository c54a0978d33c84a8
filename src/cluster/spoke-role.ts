import type { Timers } from '../discovery/timers.ts';
import { asPotluckError, PotluckError } from '../errors/errors.ts';
import { deviceLabel } from './device.ts';
import type { Member } from './members.ts';
import type { Message, MessageOf } from './messages.ts';
import { type Plan, planFromMessage } from './plan.ts';
import type { PlanHolder } from './plan-holder.ts';

/** At most one report of progress in this time. */
const PROGRESS_MS = 250;

export interface SpokeRoleOptions {
  readonly selfId: string;
  readonly timers: Timers;
  readonly holder: PlanHolder;
  /** The hub by this device's own election. */
  readonly hubId: () => string | null;
  /** Something in the view of this device is another. */
  readonly changed: () => void;
}

export interface Progress {
  readonly epoch: number;
  readonly bytes: number;
  readonly total: number;
}

/** What a device does while another one is hub: it prepares and activates the plans of that hub, and of no other device. */
export class SpokeRole {
  readonly #options: SpokeRoleOptions;
  #progress: Progress | null = null;

  constructor(options: SpokeRoleOptions) {
    this.#options = options;
  }

  /** Tiles on their way to this device; null where it prepares nothing. */
  get progress(): Progress | null {
    return this.#progress;
  }

  /** A message of `member`; false where it is not for this role. */
  receive(member: Member, message: Message): boolean {
    if (message.type === 'prepare') void this.#prepare(member, message);
    else if (message.type === 'activate') void this.#activate(member, message.epoch);
    else if (message.type === 'retire') this.#retire(member, message.epoch);
    else return false;
    return true;
  }

  async #prepare(hub: Member, message: MessageOf<'prepare'>): Promise<void> {
    const { epoch } = message.plan;
    const { holder, changed } = this.#options;
    try {
      this.#checkHub(hub);
      const plan = this.#localPlan(planFromMessage(message.plan), hub);
      const index = plan.devices.findIndex(d => d.id === this.#options.selfId);
      if (plan.epoch <= (holder.active?.epoch ?? -1)) {
        throw new PotluckError(
          'NOT_READY',
          `Plan ${epoch} is older than plan ${holder.active?.epoch}, which is active.`,
        );
      }
      if (index < 1) throw new PotluckError('PROTOCOL', `Plan ${epoch} has no part for this device.`);
      this.#progress = { epoch, bytes: 0, total: 0 };
      changed();
      await holder.prepare(plan, index, hub.device, this.#reporter(hub, epoch));
      hub.link.send({ type: 'prepared', epoch });
    } catch (error) {
      this.#sendFailure(hub, epoch, error);
    } finally {
      if (this.#progress?.epoch === epoch) this.#progress = null;
      changed();
    }
  }

  async #activate(hub: Member, epoch: number): Promise<void> {
    const { holder, changed } = this.#options;
    try {
      this.#checkHub(hub);
      const { kvPages } = await holder.activate(epoch);
      hub.link.send({ type: 'active', epoch, kvPages });
    } catch (error) {
      this.#sendFailure(hub, epoch, error);
    } finally {
      changed();
    }
  }

  #retire(hub: Member, epoch: number): void {
    const { holder, changed } = this.#options;
    if (holder.active?.hubId !== hub.id || holder.active.epoch > epoch) return;
    void holder
      .deactivate(
        new PotluckError('NOT_READY', `${deviceLabel(hub.device)} made a plan without this device.`),
      )
      .then(changed);
  }

  #checkHub(member: Member): void {
    const hubId = this.#options.hubId();
    if (hubId === member.id) return;
    const label = deviceLabel(member.device);
    throw new PotluckError(
      'NOT_READY',
      `${label} is not the hub that this device follows (${hubId ?? 'none'}).`,
    );
  }

  /** The plan with the hub's address as it is reached from here; the hub does not know its own. */
  #localPlan(plan: Plan, hub: Member): Plan {
    if (plan.hubId !== hub.id)
      throw new PotluckError('PROTOCOL', `${deviceLabel(hub.device)} sent another hub's plan.`);
    const { host, linkPort } = hub.device;
    const devices = plan.devices.map((d, i) => (i === 0 ? { ...d, host, linkPort } : d));
    return { ...plan, devices };
  }

  #reporter(hub: Member, epoch: number): (bytes: number, total: number) => void {
    const { timers, changed } = this.#options;
    let sentAt = Number.NEGATIVE_INFINITY;
    return (bytes, total) => {
      if (this.#progress?.epoch === epoch) this.#progress = { epoch, bytes, total };
      const now = timers.now();
      if (bytes < total && now - sentAt < PROGRESS_MS) return;
      sentAt = now;
      hub.link.send({ type: 'prepare-progress', epoch, bytes, total });
      changed();
    };
  }

  #sendFailure(hub: Member, epoch: number, error: unknown): void {
    const { code, message } = asPotluckError(error);
    hub.link.send({ type: 'plan-failed', epoch, code, message });
  }
}
