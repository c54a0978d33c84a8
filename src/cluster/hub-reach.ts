import type { Timers } from '../discovery/timers.ts';
import type { PotluckError } from '../errors/errors.ts';
import { deviceLabel } from './device.ts';
import { Failures } from './failures.ts';
import type { Member } from './members.ts';

/** A device may follow a hub that this device is not linked to for so long: links to a hub take a moment, and so does news of its end. */
const OUT_OF_REACH_MS = 10_000;

export interface HubReachOptions {
  readonly selfId: string;
  readonly timers: Timers;
  readonly members: () => readonly Member[];
  /** `mayBeHub` answers otherwise now. */
  readonly changed: () => void;
}

/**
 * Where not every device has a link to every other: which ones this device may follow. Not one that follows a hub out of this
 * device's reach, for it makes no plans; and not one whose link breaks again and again, until it has stood for a while.
 */
export class HubReach {
  readonly #options: HubReachOptions;
  /** Links that were lost. */
  readonly #lost: Failures;
  /** Since when a device follows a hub out of reach (milliseconds of the clock), by its id. */
  readonly #since = new Map<string, number>();
  #timer: unknown = null;

  constructor(options: HubReachOptions) {
    this.#options = options;
    this.#lost = new Failures(() => options.timers.now());
  }

  /** The link to `member` broke. */
  lost(member: Member, error: PotluckError): void {
    if (!member.leaving) this.#lost.add(member.device, error);
  }

  /** Looks at what the members say now. */
  update(): void {
    const { timers, members } = this.#options;
    const now = timers.now();
    const away = members().filter(member => this.#hubIsAway(member));
    const ids = new Set(away.map(({ id }) => id));
    for (const id of [...this.#since.keys()]) if (!ids.has(id)) this.#since.delete(id);
    for (const id of ids) if (!this.#since.has(id)) this.#since.set(id, now);
    const ends = [...this.#since.values()].map(since => since + OUT_OF_REACH_MS - now).filter(ms => ms > 0);
    const waits = [...ends, ...(this.#lost.nextEndMs === null ? [] : [this.#lost.nextEndMs])];
    timers.clearTimeout(this.#timer);
    this.#timer =
      waits.length === 0
        ? null
        : timers.setTimeout(() => this.#options.changed(), Math.max(1, Math.min(...waits)));
  }

  mayBeHub(id: string): boolean {
    return this.#lost.isOver(id) && !this.#isAstray(id);
  }

  stop(): void {
    this.#options.timers.clearTimeout(this.#timer);
  }

  /** One sentence for each device that this one does not follow, but could. */
  get notes(): string[] {
    return this.#options.members().flatMap(member => {
      const label = deviceLabel(member.device);
      const failure = this.#lost.current.find(({ deviceId }) => deviceId === member.id);
      if (failure !== undefined && failure.count > 1)
        return [
          `The link to ${label} breaks again and again: this device does not follow it until the link has stood for a while. Look at the network between the two.`,
        ];
      if (!this.#isAstray(member.id)) return [];
      const hubId = member.state?.hubId ?? '';
      const hub = member.state?.peers.find(peer => peer.id === hubId);
      const where = hub === undefined ? '' : ` at ${hub.host}:${hub.port}`;
      return [
        `${label} follows a hub (${hubId.slice(0, 8)}${where}) that this device cannot reach: it goes on without them. Look for a firewall or a guest network between the two.`,
      ];
    });
  }

  #hubIsAway({ id, state }: Member): boolean {
    const hubId = state?.hubId ?? null;
    if (hubId === null || hubId === id || hubId === this.#options.selfId) return false;
    return !this.#lost.isOver(hubId) || !this.#options.members().some(member => member.id === hubId);
  }

  #isAstray(id: string): boolean {
    const since = this.#since.get(id);
    return since !== undefined && this.#options.timers.now() - since >= OUT_OF_REACH_MS;
  }
}
