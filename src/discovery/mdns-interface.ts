import type { Advert, FoundDevice } from './discovery.ts';

const SERVICE_TYPE = 'potluck';

/** The parts of bonjour-service that are used. */
export interface MdnsBrowser {
  stop(): void;
}

export interface MdnsService {
  readonly port: number;
  readonly txt?: unknown;
  readonly referer?: { readonly address: string };
}

interface MdnsSocket {
  on(event: 'error' | 'warning', listener: (error: Error) => void): unknown;
}

export interface MdnsBonjour {
  publish(service: {
    name: string;
    type: string;
    port: number;
    host: string;
    probe: boolean;
    disableIPv6: boolean;
    txt: Record<string, string>;
  }): unknown;
  find(what: { type: string }, onUp: (service: MdnsService) => void): MdnsBrowser;
  unpublishAll(done: () => void): void;
  destroy(done: () => void): void;
}

/** The multicast-dns socket inside a Bonjour. bonjour-service does not give it out, and an error that nobody listens to
 *  ends the process. */
function innerSocket(bonjour: MdnsBonjour): MdnsSocket {
  const server: unknown = Reflect.get(bonjour, 'server');
  const mdns: unknown = typeof server === 'object' && server !== null ? Reflect.get(server, 'mdns') : null;
  if (typeof mdns !== 'object' || mdns === null || typeof Reflect.get(mdns, 'on') !== 'function') {
    throw new Error('bonjour-service has no server.mdns; another version of it is installed');
  }
  return mdns as MdnsSocket;
}

const TEXT_LIMITS = { id: 32, cluster: 64, version: 32 } as const;

function textOf(txt: unknown, key: keyof typeof TEXT_LIMITS): string | null {
  const value: unknown = typeof txt === 'object' && txt !== null ? Reflect.get(txt, key) : null;
  return typeof value === 'string' && value.length > 0 && value.length <= TEXT_LIMITS[key] ? value : null;
}

/** What a service says, or null where it is not one of ours. */
export function foundDevice(service: MdnsService): FoundDevice | null {
  const id = textOf(service.txt, 'id');
  const cluster = textOf(service.txt, 'cluster');
  const version = textOf(service.txt, 'version');
  const host = service.referer?.address;
  const { port } = service;
  if (id === null || !/^[0-9a-f]+$/.test(id) || cluster === null || version === null) return null;
  if (host === undefined || !Number.isInteger(port) || port < 1 || port > 65535) return null;
  return { id, host, port, cluster, version };
}

export interface MdnsInterfaceOptions {
  readonly make: (failed: (error: unknown) => void) => MdnsBonjour;
  readonly advert: Advert;
  readonly found: (found: FoundDevice) => void;
  /** The interface does not work, for this reason. May be called more than once, also from within open(). */
  readonly failed: (reason: string) => void;
}

/** Advertises and looks on one interface. */
export class MdnsInterface {
  readonly #options: MdnsInterfaceOptions;
  #bonjour: MdnsBonjour | null = null;
  #browser: MdnsBrowser | null = null;

  constructor(options: MdnsInterfaceOptions) {
    this.#options = options;
  }

  open(): void {
    const { make, advert } = this.#options;
    try {
      const bonjour = make(error => this.#fail(error));
      this.#bonjour = bonjour;
      const socket = innerSocket(bonjour);
      socket.on('error', error => this.#fail(error));
      // membership refused, packet of someone else that does not decode
      socket.on('warning', error => this.#warn(error));
      bonjour.publish({
        // no dots: bonjour-service cuts names there
        name: `potluck-${advert.id}`,
        type: SERVICE_TYPE,
        port: advert.linkPort,
        host: `${advert.id}.local`,
        probe: false,
        disableIPv6: true,
        txt: {
          id: advert.id,
          cluster: advert.cluster,
          version: advert.version,
          port: String(advert.linkPort),
        },
      });
      this.ask();
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Asks who is there. A browser reports a device once, so each question has a new one: a device that came back, or
   *  has another address now, is then reported again. */
  ask(): void {
    this.#browser?.stop();
    this.#browser = this.#bonjour?.find({ type: SERVICE_TYPE }, service => this.#heard(service)) ?? null;
  }

  /** Resolves when the goodbye is sent and the socket is closed. */
  async close(): Promise<void> {
    const bonjour = this.#bonjour;
    this.#browser?.stop();
    this.#browser = null;
    this.#bonjour = null;
    if (bonjour === null) return;
    await new Promise<void>(resolve => bonjour.unpublishAll(resolve));
    await new Promise<void>(resolve => bonjour.destroy(resolve));
  }

  #heard(service: MdnsService): void {
    const found = foundDevice(service);
    if (found !== null && found.id !== this.#options.advert.id) this.#options.found(found);
  }

  #fail(error: unknown): void {
    if (this.#bonjour !== null) this.#options.failed(error instanceof Error ? error.message : String(error));
  }

  #warn(error: Error): void {
    // addMembership failed: nothing will be heard here
    if (/addMembership|ENODEV|EADDRNOTAVAIL/.test(error.message)) this.#fail(error);
  }
}
