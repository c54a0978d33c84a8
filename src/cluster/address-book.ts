import type { Timers } from '../discovery/timers.ts';

/** Who named an address: the user (never forgotten), or the network. */
export type AddressSource = 'user' | 'network';

export interface Address {
  readonly host: string;
  readonly port: number;
  readonly source: AddressSource;
  /** Device that was found there; null where nobody knows yet. */
  id: string | null;
  failures: number;
  /** 'idle': a link is there, or will never be. */
  phase: 'idle' | 'waiting' | 'dialing';
  timer: unknown;
}

/** Most addresses that the network may name. */
const MOST_ADDRESSES = 256;
/** Tries of an address that the network named; discovery names it again when somebody is there. */
const NETWORK_TRIES = 6;
const FIRST_RETRY_MS = 250;
const LONGEST_RETRY_MS = 10_000;
/** After a refusal nothing changes soon. */
const REFUSED_RETRY_MS = 30_000;
/** Of two devices that find each other, the one with the lower id dials; the other one waits this long for it. */
const HIGHER_ID_WAIT_MS = 1000;

export interface AddressBookOptions {
  readonly selfId: string;
  readonly timers: Timers;
  readonly dial: (address: Address) => void;
  /** A link to this device is there. */
  readonly isLinked: (id: string) => boolean;
}

/** The addresses of other devices, and when to dial them. */
export class AddressBook {
  readonly #options: AddressBookOptions;
  readonly #addresses = new Map<string, Address>();
  #stopped = false;

  constructor(options: AddressBookOptions) {
    this.#options = options;
  }

  /** Names an address; `id` where the device there is known. Passed over where it is known, or the book is full. */
  add(host: string, port: number, id: string | null, source: AddressSource): void {
    if (this.#stopped || id === this.#options.selfId) return;
    const key = `${host} ${port}`;
    const known = this.#addresses.get(key);
    if (known !== undefined) {
      this.#renew(known, id);
      return;
    }
    if (source === 'network' && this.#addresses.size >= MOST_ADDRESSES) return;
    const address: Address = { host, port, source, id, failures: 0, phase: 'idle', timer: null };
    this.#addresses.set(key, address);
    this.#dialIn(address, id !== null && id < this.#options.selfId ? HIGHER_ID_WAIT_MS : 0);
  }

  /** Nobody answered, or the link ended before it was of use; `refused`: for a reason that stays. */
  failed(address: Address, refused: boolean): void {
    if (this.#stopped) return;
    address.phase = 'idle';
    address.failures += 1;
    if (address.source === 'network' && address.failures >= NETWORK_TRIES) {
      this.#addresses.delete(`${address.host} ${address.port}`);
      return;
    }
    const backoff = Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** Math.min(address.failures - 1, 16));
    this.#dialIn(address, refused ? REFUSED_RETRY_MS : backoff);
  }

  /** Device `id` answered there. This device's own address is kept, so that nobody names it again, and never dialed. */
  identified(address: Address, id: string): void {
    address.id = id;
    address.phase = 'idle';
  }

  /** The link that was dialed is in use. */
  reached(address: Address): void {
    address.failures = 0;
  }

  /** The link to `id` ended: its addresses are dialed again; `refused`: it ended for a reason that stays. */
  lost(id: string, refused: boolean): void {
    for (const address of this.#addresses.values()) {
      if (address.id === id && address.phase === 'idle')
        this.#dialIn(address, refused ? REFUSED_RETRY_MS : FIRST_RETRY_MS);
    }
  }

  stop(): void {
    this.#stopped = true;
    for (const address of this.#addresses.values()) this.#options.timers.clearTimeout(address.timer);
    this.#addresses.clear();
  }

  /** Discovery named it again: somebody is there now, maybe another device than before. */
  #renew(address: Address, id: string | null): void {
    if (id === null || address.id === id || address.id === this.#options.selfId) return;
    address.id = id;
    if (address.phase === 'idle') this.#dialIn(address, 0);
  }

  #dialIn(address: Address, milliseconds: number): void {
    const { timers, isLinked, selfId, dial } = this.#options;
    timers.clearTimeout(address.timer);
    address.phase = 'waiting';
    address.timer = timers.setTimeout(() => {
      if (address.id !== null && (address.id === selfId || isLinked(address.id))) {
        address.phase = 'idle';
        return;
      }
      address.phase = 'dialing';
      dial(address);
    }, milliseconds);
  }
}
