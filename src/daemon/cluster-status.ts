import * as v from 'valibot';
import type { Cluster } from '../cluster/cluster.ts';
import type { ClusterView, MemberView } from '../cluster/cluster-view.ts';
import type { DeviceInfo } from '../cluster/device.ts';
import { asPotluckError } from '../errors/errors.ts';
import { deviceStatus, type LocalStatus, localStatusSchema } from './local-status.ts';
import type { LocalModel } from './model-store.ts';
import type { DaemonStatus, DeviceRole } from './status.ts';

export interface ClusterStatusInput {
  readonly cluster: Cluster;
  readonly self: DeviceInfo;
  readonly local: LocalStatus;
  readonly apiUrl: string;
  readonly discovery: boolean;
  /** Why this device could not take part in the plan of another; the hub has its own note of that. */
  readonly leftOut: string | null;
  readonly model: LocalModel | null;
}

/** The whole cluster as this device sees it; the other devices are asked for what only they know. */
export async function clusterStatus(input: ClusterStatusInput): Promise<DaemonStatus> {
  const { cluster, self, local, apiUrl, discovery, model } = input;
  const view = cluster.view();
  const others = await Promise.all(
    view.members.map(async member => ({ member, told: await ask(cluster, member) })),
  );
  const hubLocal =
    view.hubId === self.id ? local : (others.find(o => o.member.id === view.hubId)?.told.status ?? null);
  const devices = [
    deviceStatus(self, roleOf(view, self.id), local, progressOf(view, self.id), null),
    ...others.map(({ member, told }) =>
      deviceStatus(
        member,
        roleOf(view, member.id),
        told.status,
        progressOf(view, member.id),
        (member.roundTripMs ?? 0) * 1000,
      ),
    ),
  ];
  const hub = devices.find(device => device.id === view.hubId);
  return {
    version: self.version,
    cluster: view.cluster,
    discovery,
    state: stateOf(view),
    device: { id: self.id, name: self.name, role: roleOf(view, self.id) },
    hub: hub ? { id: hub.id, name: hub.name } : null,
    epoch: view.plan?.epoch ?? 0,
    model: model ? { id: model.id, name: model.manifest.name, weights: model.manifest.shape.weights } : null,
    models: cluster.models().map(({ id, name, holders }) => ({
      id,
      name,
      devices: devices.filter(device => holders.includes(device.id)).map(device => device.name),
    })),
    api: { url: apiUrl },
    notes: notesOf(view, input, others),
    devices,
    engine: hubLocal?.engine ?? null,
    allreduce: hubLocal?.allreduce ?? null,
    saturated: [local, ...others.map(o => o.told.status)].reduce((sum, s) => sum + (s?.saturated ?? 0), 0),
  };
}

interface Told {
  readonly status: LocalStatus | null;
  readonly problem: string | null;
}

async function ask(cluster: Cluster, member: MemberView): Promise<Told> {
  try {
    const parsed = v.safeParse(localStatusSchema, await cluster.deviceStatus(member.id));
    if (parsed.success) return { status: parsed.output, problem: null };
    return { status: null, problem: `${member.name} sent a status that makes no sense.` };
  } catch (error) {
    return {
      status: null,
      problem: `${member.name} did not tell its status: ${asPotluckError(error).message}`,
    };
  }
}

/** A hub without a plan is about to make one, unless something keeps it from that. */
const stateOf = ({ state, role, notes }: ClusterView): DaemonStatus['state'] =>
  state === 'waiting' && role === 'hub' && notes.length === 0 ? 'preparing' : state;

function roleOf({ plan }: ClusterView, id: string): DeviceRole {
  const index = plan?.devices.findIndex(device => device.id === id) ?? -1;
  if (index < 0) return 'waiting';
  if (index > 0) return 'spoke';
  return plan!.devices.length === 1 ? 'alone' : 'hub';
}

function progressOf({ next }: ClusterView, id: string): { bytes: number; total: number } | null {
  const found = next?.progress.find(({ deviceId }) => deviceId === id);
  return found && found.total > 0 ? { bytes: found.bytes, total: found.total } : null;
}

function notesOf(
  view: ClusterView,
  { self, local, leftOut }: ClusterStatusInput,
  others: readonly { member: MemberView; told: Told }[],
): string[] {
  return [
    ...view.notes,
    ...(leftOut === null ? [] : [`This device is left out: ${leftOut}`]),
    ...view.failures.map(failure => `${failure.name} is left out for a while: ${failure.message}`),
    ...local.notes.map(note => `${self.name}: ${note}`),
    ...others.flatMap(({ member, told }) => [
      ...(told.problem === null ? [] : [told.problem]),
      ...(told.status?.notes ?? []).map(note => `${member.name}: ${note}`),
    ]),
  ];
}
