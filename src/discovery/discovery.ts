/** What a device says of itself to the network. */
export interface Advert {
  /** Device id: hex, at most 32 digits. */
  readonly id: string;
  readonly name: string;
  /** Name of the cluster; only devices of the same one join. */
  readonly cluster: string;
  readonly linkPort: number;
  readonly version: string;
}

/** A device that was heard. `host` is the address its packet came from, not one that it claims. */
export interface FoundDevice {
  readonly id: string;
  readonly host: string;
  readonly port: number;
  readonly cluster: string;
  readonly version: string;
}

/**
 * Finds devices on the local network. It never says that a device is gone: take that from the link's heartbeat. The same device
 * is reported again and again, maybe with several addresses.
 */
export interface Discovery {
  /** Begins to advertise and to look. Found devices come to every `onFound` callback, this device itself never. */
  start(advert: Advert): void;
  onFound(callback: (found: FoundDevice) => void): void;
  /** Says goodbye to the network and closes its sockets. */
  stop(): Promise<void>;
  /** One sentence on what keeps discovery from working, for status; null where nothing does. */
  note(): string | null;
}
