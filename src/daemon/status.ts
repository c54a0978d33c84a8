/** The answer of GET /potluck/status. */
export interface DaemonStatus {
  readonly version: string;
  readonly cluster: string;
  /** Whether this device looks for others on its networks. */
  readonly discovery: boolean;
  /** 'serving': a plan is active. 'preparing': tiles are on their way. 'waiting': no model, or too few devices. */
  readonly state: 'serving' | 'preparing' | 'waiting';
  /** The device that answers. */
  readonly device: { readonly id: string; readonly name: string; readonly role: DeviceRole };
  readonly hub: { readonly id: string; readonly name: string } | null;
  /** Number of the plan; rises with every change. */
  readonly epoch: number;
  readonly model: { readonly id: string; readonly name: string; readonly weights: string } | null;
  /** What requests may ask for: packs that devices of the cluster hold, and the names of those devices. */
  readonly models: readonly {
    readonly id: string;
    readonly name: string;
    readonly devices: readonly string[];
  }[];
  readonly api: { readonly url: string };
  /** Fallbacks that were taken, and other things to know; one sentence each. */
  readonly notes: readonly string[];
  readonly devices: readonly DeviceStatus[];
  /** Null on a device that runs no engine (a spoke). */
  readonly engine: EngineStatus | null;
  readonly allreduce: AllreduceStatus | null;
  /** Tile outputs that did not fit their fixed-point range, since the plan began. */
  readonly saturated: number;
}

/** 'alone': hub of a plan of one. 'waiting': connected, but not in the active plan. */
export type DeviceRole = 'hub' | 'spoke' | 'alone' | 'waiting';

export interface DeviceStatus {
  readonly id: string;
  readonly name: string;
  readonly role: DeviceRole;
  readonly host: string;
  readonly version: string;
  readonly threads: number;
  readonly kernel: string;
  /** False where its backend does not give the same bits as the others. */
  readonly exact: boolean;
  readonly share: number;
  /** Tiles of the active plan, and their bytes. */
  readonly tiles: number;
  readonly tileBytes: number;
  readonly memory: {
    readonly budgetBytes: number | null;
    /** Bytes by purpose. */
    readonly account: Readonly<Record<string, number>>;
    /** What the operating system counts for the process: now, and at its highest. */
    readonly residentBytes: number;
    readonly highWaterBytes: number;
  } | null;
  readonly window: {
    readonly pinnedBytes: number;
    readonly ringBytes: number;
    /** Bytes that a pass reads from disk which uses every tile. */
    readonly streamedBytesPerPass: number;
    /** Bytes that were streamed since the plan began, in how many reads (those of pinned tiles counted too), and how long passes
     *  waited for them. */
    readonly streamedBytes: number;
    readonly reads: number;
    readonly waitMicroseconds: number;
    /** 'O_DIRECT', 'buffered', ...: how tiles are read. */
    readonly how: string;
    /** Bytes of all reads since the plan began, and processor time of reading and checking them. */
    readonly readBytes: number;
    readonly readCpuMicroseconds: number;
    /** Reads that were tried a second time, and tiles that were fetched anew from another device. */
    readonly retries: number;
    readonly recovered: number;
  } | null;
  /** Expert tiles; null where this device has none. */
  readonly experts: {
    /** Of all its expert tiles, and of those that fit at a time. */
    readonly totalBytes: number;
    readonly heldBytes: number;
    /** How often one was wanted that was in memory, or had to be read, since the plan began. */
    readonly hits: number;
    readonly misses: number;
    readonly streamedBytes: number;
  } | null;
  readonly kvPages: number;
  /** Time that passes spent in kernels since the plan began. */
  readonly computeMicroseconds: number;
  /** Tiles on their way to this device. */
  readonly progress: { readonly bytes: number; readonly total: number } | null;
  /** Null for the device that answers. */
  readonly link: { readonly roundTripMicroseconds: number } | null;
}

export interface EngineStatus {
  /** Requests that are computed now, and that wait. */
  readonly active: number;
  readonly waiting: number;
  /** Generated tokens a second, over the last seconds. */
  readonly tokensPerSecond: number;
  /** Since the daemon started. */
  readonly promptTokens: number;
  readonly generatedTokens: number;
  /** Tokens that were guessed, and how many of them were right. */
  readonly draftedTokens: number;
  readonly acceptedTokens: number;
  readonly passes: number;
}

export interface AllreduceStatus {
  readonly count: number;
  readonly p50Microseconds: number;
  readonly p99Microseconds: number;
  readonly bytesSent: number;
  readonly bytesReceived: number;
  readonly bytesPerToken: number;
}
