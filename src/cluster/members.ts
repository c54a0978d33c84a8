import type { Timers } from '../discovery/timers.ts';
import { asPotluckError, PotluckError } from '../errors/errors.ts';
import { type Address, AddressBook, type AddressSource } from './address-book.ts';
import type { ClusterLog } from './cluster-host.ts';
import { ControlLink, type LinkEnd, type WebSocketLike } from './control-link.ts';
import { type DeviceInfo, deviceLabel } from './device.ts';
import { MAX_KNOWN_PEERS, type Message, type MessageOf } from './messages.ts';

/** Most other devices that this one is linked to. */
const MAX_MEMBERS = 32;
/** Most links that have not said hello yet. */
const MOST_STRANGERS = 64;
/** The first state comes within this time after the hello. */
const STATE_MS = 5000;
/** Starts of devices that are remembered, to tell a copy from a device that started anew. */
const MOST_STARTS = 256;
/** Reasons that were logged; more are not told apart. */
const MOST_LOGGED = 256;

/** Another device with a link to this one. */
export interface Member {
  readonly id: string;
  /** What it last said of itself; `host` is where it is reached. */
  readonly device: DeviceInfo;
  /** What it last said of the cluster; null before its first word. */
  readonly state: MessageOf<'state'> | null;
  readonly leaving: boolean;
  readonly link: ControlLink;
}

export interface MembersOptions {
  /** This device, as it is now. */
  readonly self: () => DeviceInfo;
  readonly cluster: string;
  readonly timers: Timers;
  readonly log: ClusterLog;
  readonly dial: (host: string, port: number) => Promise<WebSocketLike>;
  /** The first message to every new member. */
  readonly state: () => MessageOf<'state'>;
  readonly joined: (member: Member) => void;
  readonly left: (member: Member, error: PotluckError) => void;
  /** Its state, its description or `leaving` is another. */
  readonly changed: (member: Member) => void;
  readonly received: (member: Member, message: Message) => void;
}

interface MutableMember extends Member {
  device: DeviceInfo;
  state: MessageOf<'state'> | null;
  leaving: boolean;
}

/**
 * The devices that this one is linked to. Between two devices one link is used: the one with the lower id takes the first
 * that opens and closes the others; the one with the higher id uses the link that the first state comes on. So both agree.
 */
export class Members {
  readonly #options: MembersOptions;
  readonly #book: AddressBook;
  readonly #members = new Map<string, MutableMember>();
  /** Every link that is not closed, with the address that was dialed for it. */
  readonly #links = new Map<ControlLink, Address | null>();
  /** Devices, see startOf, whose place another one of their id took. */
  readonly #replaced = new Set<string>();
  /** By id: more than one device has it, says the sentence. */
  readonly #twins = new Map<string, string>();
  readonly #logged = new Set<string>();
  #stopped = false;

  constructor(options: MembersOptions) {
    this.#options = options;
    this.#book = new AddressBook({
      selfId: options.self().id,
      timers: options.timers,
      dial: address => void this.#dial(address),
      isLinked: id => this.#members.has(id),
    });
  }

  get all(): readonly Member[] {
    return [...this.#members.values()];
  }

  get(id: string): Member | undefined {
    return this.#members.get(id);
  }

  /** What keeps devices from joining; one sentence each. */
  get notes(): readonly string[] {
    return [...this.#twins.values()];
  }

  /** Dials an address now and whenever the link to it is lost. */
  add(host: string, port: number, id: string | null, source: AddressSource): void {
    this.#book.add(host, port, id, source);
  }

  /** Takes a link that another device dialed. */
  accept(socket: WebSocketLike, remoteHost: string): void {
    const strangers = this.#links.size - this.#members.size;
    if (this.#stopped || strangers >= MOST_STRANGERS) {
      socket.on('error', error => this.#options.log.info(`A refused link broke: ${error.message}`));
      socket.terminate();
      return;
    }
    // IPv4 in an IPv6 socket
    this.#open(socket, remoteHost.replace(/^::ffff:/, ''), null);
  }

  broadcast(message: Message): void {
    for (const member of this.all) member.link.send(message);
  }

  /** Closes every link. */
  stop(): void {
    this.#stopped = true;
    this.#book.stop();
    for (const link of [...this.#links.keys()])
      link.close(new PotluckError('STOPPED', 'This device is stopping.'));
  }

  async #dial(address: Address): Promise<void> {
    try {
      const socket = await this.#options.dial(address.host, address.port);
      if (this.#stopped) socket.terminate();
      else this.#open(socket, address.host, address);
    } catch (error) {
      this.#book.failed(address, false);
      if (address.source === 'user')
        this.#logOnce(`dial ${address.host} ${address.port}`, asPotluckError(error).message);
    }
  }

  #open(socket: WebSocketLike, remoteHost: string, address: Address | null): void {
    const { timers, cluster } = this.#options;
    const link = new ControlLink({
      socket,
      dialed: address !== null,
      remoteHost,
      cluster,
      self: this.#options.self(),
      timers,
      opened: (opened, device) => this.#opened(opened, device),
      received: (from, message) => this.#received(from, message),
      closed: (ended, end) => this.#closed(ended, end),
    });
    this.#links.set(link, address);
  }

  #opened(link: ControlLink, device: DeviceInfo): void {
    const address = this.#links.get(link);
    if (address) this.#book.identified(address, device.id);
    // the other side decides, by its first state
    if (this.#options.self().id > device.id) {
      this.#awaitState(link, device);
      return;
    }
    const before = this.#members.get(device.id);
    if (before !== undefined && before.device.startedAt === device.startedAt) {
      link.close(new PotluckError('BUSY', `There is a link to ${deviceLabel(device)} already.`));
      return;
    }
    this.#join(link, device);
  }

  #awaitState(link: ControlLink, device: DeviceInfo): void {
    this.#options.timers.setTimeout(() => {
      if (this.#members.get(device.id)?.link === link) return;
      link.close(new PotluckError('DEADLINE', `${deviceLabel(device)} did not use the link it has.`));
    }, STATE_MS);
  }

  #join(link: ControlLink, device: DeviceInfo): void {
    const before = this.#members.get(device.id);
    const twins = before === undefined ? null : this.#twinsOf(before.device, device);
    if (before !== undefined) {
      if (twins !== null && before.device.startedAt < device.startedAt) {
        this.#twins.set(device.id, twins.message);
        link.close(twins, 'foreign');
        return;
      }
      this.#replace(before, device);
    }
    if (this.#members.size >= MAX_MEMBERS) {
      link.close(new PotluckError('BUSY', `There are ${MAX_MEMBERS} other devices already.`), 'full');
      return;
    }
    const member: MutableMember = { id: device.id, device, state: null, leaving: false, link };
    this.#members.set(device.id, member);
    this.#twins.delete(this.#options.self().id);
    if (twins !== null) this.#twins.set(device.id, twins.message);
    const address = this.#links.get(link);
    if (address) this.#book.reached(address);
    link.send(this.#options.state());
    this.#options.log.info(`${deviceLabel(device)} joined from ${device.host}:${device.linkPort}.`);
    this.#options.joined(member);
  }

  #replace(before: Member, device: DeviceInfo): void {
    if (before.device.startedAt !== device.startedAt) this.#replaced.add(startOf(before.device));
    const [oldest] = this.#replaced;
    if (this.#replaced.size > MOST_STARTS && oldest !== undefined) this.#replaced.delete(oldest);
    before.link.close(new PotluckError('DEVICE_LOST', `${deviceLabel(device)} opened a new link.`));
  }

  /**
   * A device that one of the same id replaced has ended, for that was the same device, started anew; unless it comes back: then both run,
   * and the one that started first has the place. The error that says so; null where this is no such case.
   */
  #twinsOf(before: DeviceInfo, device: DeviceInfo): PotluckError | null {
    if (before.startedAt === device.startedAt) return null;
    if (!this.#twins.has(device.id) && !this.#replaced.has(startOf(device))) return null;
    const [first, second] = before.startedAt < device.startedAt ? [before, device] : [device, before];
    return new PotluckError(
      'IDENTITY_TAKEN',
      `${second.name} at ${second.host} has the identity of ${first.name} at ${first.host} (${first.id.slice(0, 8)}) and cannot join: its data folder was copied. Stop it, delete device.json in its data folder, and start it again.`,
    );
  }

  #received(link: ControlLink, message: Message): void {
    const device = link.device!;
    if (this.#members.get(device.id)?.link !== link) {
      // only the side with the lower id opens a link with a state
      if (message.type !== 'state' || this.#options.self().id < device.id) return;
      this.#join(link, device);
    }
    const member = this.#members.get(device.id);
    if (member?.link !== link) return;
    if (message.type === 'state') {
      member.state = message;
      this.#learn(message);
      this.#options.changed(member);
    } else if (message.type === 'device') {
      member.device = device;
      this.#options.changed(member);
    } else if (message.type === 'leave') {
      member.leaving = true;
      this.#options.changed(member);
    } else {
      this.#options.received(member, message);
    }
  }

  #learn({ peers }: MessageOf<'state'>): void {
    for (const { id, host, port } of peers.slice(0, MAX_KNOWN_PEERS)) {
      if (!this.#members.has(id)) this.add(host, port, id, 'network');
    }
  }

  #closed(link: ControlLink, { error, refusal }: LinkEnd): void {
    const address = this.#links.get(link) ?? null;
    this.#links.delete(link);
    if (refusal === 'twin') this.#twins.set(this.#options.self().id, error.message);
    if (refusal !== null && refusal !== 'self')
      this.#logOnce(`${error.code} ${error.message}`, error.message);
    const { device } = link;
    const member = device === null ? undefined : this.#members.get(device.id);
    if (device !== null && member?.link === link) {
      this.#members.delete(device.id);
      this.#twins.delete(device.id);
      this.#options.log.info(`${deviceLabel(device)} left: ${error.message}`);
      this.#options.left(member, error);
      // a link that was accepted names an address too
      if (refusal === null) this.#book.add(device.host, device.linkPort, device.id, 'network');
      this.#book.lost(device.id, refusal !== null);
    } else if (address !== null && (device === null || member === undefined)) {
      if (refusal === 'self') this.#book.identified(address, this.#options.self().id);
      else this.#book.failed(address, refusal !== null);
    }
  }

  /** The same trouble comes back with every dial. */
  #logOnce(key: string, message: string): void {
    if (this.#logged.has(key) || this.#logged.size >= MOST_LOGGED) return;
    this.#logged.add(key);
    this.#options.log.warn(message);
  }
}

const startOf = ({ id, startedAt }: DeviceInfo): string => `${id} ${startedAt}`;
