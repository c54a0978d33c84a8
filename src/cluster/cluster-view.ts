import type { Failure } from './failures.ts';
import type { Plan } from './plan.ts';
import type { AttemptPhase } from './plan-attempt.ts';

/** What a device knows of its cluster, for status. */
export interface ClusterView {
  readonly cluster: string;
  readonly selfId: string;
  /** The hub that this device follows; null where nobody holds a model completely. */
  readonly hubId: string | null;
  readonly role: 'hub' | 'spoke' | 'none';
  /** 'serving': a plan is active here. 'preparing': one is on its way. 'waiting': neither. */
  readonly state: 'serving' | 'preparing' | 'waiting';
  /** The model that the cluster computes, or is about to; null where no device has one. */
  readonly modelId: string | null;
  /** The highest number of a plan that this device knows of. */
  readonly epoch: number;
  /** The plan that is active on this device. */
  readonly plan: Plan | null;
  /** The plan that is on its way: on the hub with the progress of all devices, on a spoke with its own. */
  readonly next: NextPlanView | null;
  readonly members: readonly MemberView[];
  /** Devices that failed and are left out for a while (hub only). */
  readonly failures: readonly Failure[];
  /** What keeps the cluster from working as it should; one sentence each. */
  readonly notes: readonly string[];
}

export interface NextPlanView {
  readonly epoch: number;
  readonly phase: AttemptPhase;
  readonly progress: readonly { readonly deviceId: string; readonly bytes: number; readonly total: number }[];
}

/** Another device that this one is linked to. */
export interface MemberView {
  readonly id: string;
  readonly name: string;
  readonly host: string;
  readonly linkPort: number;
  readonly apiPort: number;
  readonly version: string;
  readonly threads: number;
  readonly kernel: string;
  readonly exact: boolean;
  readonly share: number;
  readonly memoryBytes: number;
  readonly models: readonly { readonly id: string; readonly name: string }[];
  /** The hub that it follows; null before its first word, or where it follows none. */
  readonly hubId: string | null;
  readonly leaving: boolean;
  /** Of the last heartbeat; null before the first. */
  readonly roundTripMs: number | null;
}
