/** Everything that a daemon is told when it starts. The command line fills in the defaults; nothing here is optional. */
export interface DaemonOptions {
  /** Address the API listens on. */
  readonly apiHost: string;
  /** Port of the API; 0: any free one. */
  readonly apiPort: number;
  /** Port other devices connect to, on all addresses; 0: any free one. */
  readonly linkPort: number;
  /** Folder of this device alone: identity, received models, cached tiles. Made where absent. */
  readonly dataFolder: string;
  /** Folder of a pack, or 'none': the model then comes from another device. */
  readonly model: string | 'none';
  /** Folder of further packs that requests may ask for; null: none. Not looked at where `model` is 'none'. */
  readonly modelsFolder: string | null;
  /** Bytes the whole process may take; 'auto': from what the system has free; null: no budget, all tiles stay. */
  readonly memory: number | 'auto' | null;
  readonly threads: number;
  /** Weight of this device when tiles are shared out; null: its threads. */
  readonly share: number | null;
  /** Name that people see. */
  readonly name: string;
  /** Devices of another cluster are not joined. */
  readonly cluster: string;
  /** Devices to connect to without discovery. */
  readonly peers: readonly { readonly host: string; readonly port: number }[];
  /** Finds devices by multicast DNS. */
  readonly discovery: boolean;
  /** What other devices are told to connect to (a relay, a forwarded port); null: the address they see, and linkPort. */
  readonly advertiseHost: string | null;
  readonly advertisePort: number | null;
  /** Most tokens of one answer; null: as many as the context holds. */
  readonly maxTokens: number | null;
  /** Whether passes check drafts of the next tokens, see src/engine/drafts.ts. */
  readonly drafts: boolean;
  /** 'auto': native, or onnxruntime where the addon is missing (and then says so). */
  readonly backend: 'native' | 'onnxruntime' | 'auto';
  /** Kernel variant of the native backend; null: the best this processor has. */
  readonly kernel: string | null;
  /** Most bytes of tiles in memory, whatever `memory` leaves; null: no further limit. */
  readonly windowBytes: number | null;
  /** Most bytes on disk of tiles that came from other devices; null: no limit. */
  readonly diskBytes: number | null;
}

/** What `startDaemon` resolves to, once both ports listen. */
export interface RunningDaemon {
  /** http://host:port, without a slash at the end. */
  readonly apiUrl: string;
  readonly linkPort: number;
  readonly deviceId: string;
  /** Leaves the cluster, ends requests, closes everything; rejects with what could not be closed. May be called twice. */
  stop(): Promise<void>;
  /** Resolves when the daemon has stopped. */
  readonly finished: Promise<void>;
}
