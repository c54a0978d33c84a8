import type { Generator } from '../engine/generate.ts';
import type { EngineWork } from '../engine/pass-runner.ts';
import type { PotluckError } from '../errors/errors.ts';
import type { Plan, PlannedTile } from './plan.ts';

/** Where the hub's link port is, as this device reaches it. */
export interface HubAddress {
  readonly host: string;
  readonly linkPort: number;
}

/** What the daemon does for the cluster. Calls of activate, deactivate and serve never overlap. */
export interface ClusterHost {
  /**
   * Fetches what `plan` needs on device `index` and is not on disk yet, while the active plan goes on. `onProgress` gets bytes
   * done and in all; a device that reports none for 30 s is given up. Stops when `signal` aborts.
   */
  prepare(
    plan: Plan,
    index: number,
    hub: HubAddress,
    onProgress: (bytes: number, total: number) => void,
    signal: AbortSignal,
  ): Promise<void>;
  /**
   * Swaps to `plan`. Runs on all its devices at once: the hub waits in it for the tensor streams of the spokes. Should reject
   * soon after `signal` aborts (a device failed, so the streams will not all come).
   */
  activate(plan: Plan, index: number, signal: AbortSignal): Promise<{ kvPages: number }>;
  /** Hub only: every device of `plan` is active; `kvPages` of each, in the order of the plan. Passes may run. */
  serve(plan: Plan, kvPages: readonly number[]): Promise<void>;
  /** The active plan is over: gives its memory back. Does nothing where none is active. */
  deactivate(reason: PotluckError): Promise<void>;
  /** Tiles of a model that this device holds completely. */
  manifestFor(modelId: string): { readonly tiles: readonly PlannedTile[] };
  /** The engine of this device, and what it has done so far; used while this device is hub. */
  readonly generator: Generator;
  work(): EngineWork;
  /** What this device tells of itself to another one that asks (JSON, under 1 MiB). */
  status(): unknown;
  readonly log: ClusterLog;
}

export interface ClusterLog {
  info(message: string): void;
  warn(message: string): void;
}
