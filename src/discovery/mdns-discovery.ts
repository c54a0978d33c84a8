import type { Advert, Discovery, FoundDevice } from './discovery.ts';
import { interfaceAddresses, type NetworkInterfaces } from './interface-addresses.ts';
import { type MdnsBonjour, MdnsInterface } from './mdns-interface.ts';
import type { Timers } from './timers.ts';

/** How often interfaces are listed anew and devices are asked again: often at first, for devices that start together. */
const FIRST_SCANS_MS = [250, 500, 1000, 2000, 4000];
const SCAN_MS = 10_000;
/** Waits for the goodbye packets to leave. */
const STOP_MS = 500;

export interface MdnsOptions {
  /** Makes a Bonjour of bonjour-service with these options; `failed` is its error callback. */
  readonly bonjour: (
    options: { readonly interface: string; readonly bind: '0.0.0.0' },
    failed: (error: unknown) => void,
  ) => MdnsBonjour;
  readonly networkInterfaces: () => NetworkInterfaces;
  readonly timers: Timers;
  /** Looks on the loopback interface too, even where there are others. */
  readonly loopback: boolean;
}

/** Discovery by multicast DNS, over bonjour-service: one instance for each IPv4 interface. */
export class MdnsDiscovery implements Discovery {
  readonly #options: MdnsOptions;
  readonly #callbacks: ((found: FoundDevice) => void)[] = [];
  /** By address of the interface. */
  readonly #interfaces = new Map<string, MdnsInterface>();
  /** Why an interface does not work, by address. */
  readonly #failures = new Map<string, string>();
  #advert: Advert | null = null;
  #scans = 0;
  #timer: unknown = null;

  constructor(options: MdnsOptions) {
    this.#options = options;
  }

  start(advert: Advert): void {
    this.#advert = advert;
    this.#scan(advert);
  }

  onFound(callback: (found: FoundDevice) => void): void {
    this.#callbacks.push(callback);
  }

  async stop(): Promise<void> {
    this.#options.timers.clearTimeout(this.#timer);
    this.#advert = null;
    const closing = [...this.#interfaces.values()].map(i => i.close());
    this.#interfaces.clear();
    let timer: unknown = null;
    const deadline = new Promise<void>(resolve => {
      timer = this.#options.timers.setTimeout(resolve, STOP_MS);
    });
    await Promise.race([Promise.all(closing), deadline]);
    this.#options.timers.clearTimeout(timer);
  }

  note(): string | null {
    if (this.#interfaces.size > 0 || this.#advert === null) return null;
    const reasons = [...this.#failures].map(([address, reason]) => `${address}: ${reason}`);
    const why = reasons.length === 0 ? 'there is no IPv4 interface' : reasons.join('; ');
    return `Devices are not found by multicast DNS (${why}). Name one with --peer host:port.`;
  }

  #scan(advert: Advert): void {
    const { timers, networkInterfaces, loopback } = this.#options;
    const wanted = new Set(interfaceAddresses(networkInterfaces(), loopback));
    for (const [address, open] of this.#interfaces) {
      if (wanted.has(address)) {
        open.ask();
      } else {
        this.#interfaces.delete(address);
        void open.close();
      }
    }
    for (const address of this.#failures.keys()) if (!wanted.has(address)) this.#failures.delete(address);
    for (const address of wanted) if (!this.#interfaces.has(address)) this.#open(address, advert);
    this.#timer = timers.setTimeout(() => this.#scan(advert), FIRST_SCANS_MS[this.#scans++] ?? SCAN_MS);
  }

  #open(address: string, advert: Advert): void {
    const opened: MdnsInterface = new MdnsInterface({
      make: failed => this.#options.bonjour({ interface: address, bind: '0.0.0.0' }, failed),
      advert,
      found: found => {
        this.#failures.delete(address);
        for (const callback of this.#callbacks) callback(found);
      },
      failed: reason => {
        this.#failures.set(address, reason);
        if (this.#interfaces.get(address) !== opened) return;
        // the next scan tries again
        this.#interfaces.delete(address);
        void opened.close();
      },
    });
    this.#interfaces.set(address, opened);
    opened.open();
  }
}
