import * as v from 'valibot';
import { type DeviceInfo, text } from '../cluster/device.ts';
import type { Engine } from '../engine/engine.ts';
import type { PlanRunner } from '../engine/plan-runner.ts';
import type { MemoryKeeper } from './memory-keeper.ts';
import type { OpenPlan, PlanHost } from './plan-host.ts';
import { processMemory } from './process-memory.ts';
import type { AllreduceStatus, DeviceStatus, EngineStatus } from './status.ts';

/** What only the device itself knows; other devices ask for it over the control link. */
export type LocalStatus = Pick<
  DeviceStatus,
  'tiles' | 'tileBytes' | 'memory' | 'window' | 'experts' | 'kvPages' | 'computeMicroseconds'
> & {
  readonly saturated: number;
  readonly notes: readonly string[];
  /** Null on a spoke. */
  readonly engine: EngineStatus | null;
  readonly allreduce: AllreduceStatus | null;
};

/** What runs passes, on a hub. */
export interface HubParts {
  readonly engine: Engine;
  readonly runner: PlanRunner;
}

const MOST_NOTES = 32;
const NOTE_LENGTH = 1000;
const bytes = v.pipe(v.number(), v.finite(), v.minValue(0));

/** Checks what another device answered. */
export const localStatusSchema = v.object({
  tiles: bytes,
  tileBytes: bytes,
  memory: v.nullable(
    v.object({
      budgetBytes: v.nullable(bytes),
      account: v.record(v.pipe(v.string(), v.maxLength(40)), bytes),
      residentBytes: bytes,
      highWaterBytes: bytes,
    }),
  ),
  window: v.nullable(
    v.object({
      pinnedBytes: bytes,
      ringBytes: bytes,
      streamedBytesPerPass: bytes,
      streamedBytes: bytes,
      reads: bytes,
      waitMicroseconds: bytes,
      how: v.pipe(v.string(), v.maxLength(40)),
      readBytes: bytes,
      readCpuMicroseconds: bytes,
      retries: bytes,
      recovered: bytes,
    }),
  ),
  experts: v.nullable(
    v.object({ totalBytes: bytes, heldBytes: bytes, hits: bytes, misses: bytes, streamedBytes: bytes }),
  ),
  kvPages: bytes,
  computeMicroseconds: bytes,
  saturated: bytes,
  notes: v.pipe(v.array(text(NOTE_LENGTH)), v.maxLength(MOST_NOTES)),
  engine: v.nullable(
    v.object({
      active: bytes,
      waiting: bytes,
      tokensPerSecond: bytes,
      promptTokens: bytes,
      generatedTokens: bytes,
      draftedTokens: bytes,
      acceptedTokens: bytes,
      passes: bytes,
    }),
  ),
  allreduce: v.nullable(
    v.object({
      count: bytes,
      p50Microseconds: bytes,
      p99Microseconds: bytes,
      bytesSent: bytes,
      bytesReceived: bytes,
      bytesPerToken: bytes,
    }),
  ),
});

export function localStatus(
  host: PlanHost,
  keeper: MemoryKeeper,
  notes: readonly string[],
  hub: HubParts | null,
): LocalStatus {
  const open = host.current;
  const memory = { budgetBytes: keeper.budget, account: { ...keeper.account }, ...processMemory() };
  const parts = {
    memory,
    notes: withinLimits(notes),
    engine: hub ? engineStatus(hub.engine) : null,
    allreduce: null,
  };
  const nothing = { tiles: 0, tileBytes: 0, window: null, experts: null, kvPages: 0 };
  if (!open) return { ...parts, ...nothing, computeMicroseconds: 0, saturated: 0 };
  const bytesOf = (tiles: readonly number[]) =>
    tiles.reduce((sum, tile) => sum + open.model.manifest.tiles[tile]!.bytes, 0);
  const experts = open.device.experts?.stats() ?? null;
  return {
    tiles: open.tiles.order.length,
    tileBytes: bytesOf(open.tiles.order),
    experts: experts && { totalBytes: bytesOf(open.tiles.expert.flat()), ...experts },
    ...parts,
    allreduce: hub ? allreduceStatus(host, hub.runner) : null,
    window: windowStatus(open),
    kvPages: open.device.kvPages,
    computeMicroseconds: open.device.computeMicroseconds,
    saturated: open.device.saturated,
    notes: withinLimits([...notes, ...readNote(open.source.how)]),
  };
}

/** As many and as long as other devices take; what was left out is counted. */
function withinLimits(notes: readonly string[]): readonly string[] {
  const cut = notes.map(note => (note.length <= NOTE_LENGTH ? note : `${note.slice(0, NOTE_LENGTH - 1)}…`));
  if (cut.length <= MOST_NOTES) return cut;
  const told = cut.slice(0, MOST_NOTES - 1);
  return [...told, `There are ${cut.length - told.length} more notes.`];
}

function windowStatus({ device, source }: OpenPlan): DeviceStatus['window'] {
  const { pinnedBytes, ringBytes, streamedBytesPerPass, streamedBytes, reads, waitMicroseconds } =
    device.window.stats();
  const { bytes: readBytes, cpuMicroseconds: readCpuMicroseconds, retries, recovered } = source.stats();
  return {
    ...{ pinnedBytes, ringBytes, streamedBytesPerPass, streamedBytes, reads, waitMicroseconds },
    how: source.how,
    ...{ readBytes, readCpuMicroseconds, retries, recovered },
  };
}

function engineStatus(engine: Engine): EngineStatus {
  const { active, waiting, tokensPerSecond, passes } = engine.stats();
  const { promptTokens, generatedTokens, draftedTokens, acceptedTokens } = engine.stats();
  const tokens = { promptTokens, generatedTokens, draftedTokens, acceptedTokens };
  return { active, waiting, tokensPerSecond: tokensPerSecond ?? 0, ...tokens, passes };
}

function allreduceStatus(host: PlanHost, runner: PlanRunner): AllreduceStatus | null {
  const stats = host.hubStats();
  if (!stats) return null;
  const { sums, p50Microseconds, p99Microseconds, bytesSent, bytesReceived } = stats;
  const tokens = Math.max(1, runner.tokens);
  const bytesPerToken = (bytesSent + bytesReceived) / tokens;
  return { count: sums, p50Microseconds, p99Microseconds, bytesSent, bytesReceived, bytesPerToken };
}

/** Reading through the page cache costs memory that no budget sees. */
const readNote = (how: string): string[] =>
  how === 'buffered' ? ['Tiles are read through the page cache: no direct reads here.'] : [];

/** A device of the cluster, with what it told of itself where it answered. */
export function deviceStatus(
  device: Pick<DeviceInfo, 'id' | 'name' | 'host' | 'version' | 'threads' | 'kernel' | 'exact' | 'share'>,
  role: DeviceStatus['role'],
  local: LocalStatus | null,
  progress: DeviceStatus['progress'],
  roundTripMicroseconds: number | null,
): DeviceStatus {
  return {
    id: device.id,
    name: device.name,
    role,
    host: device.host,
    version: device.version,
    threads: device.threads,
    kernel: device.kernel,
    exact: device.exact,
    share: device.share,
    tiles: local?.tiles ?? 0,
    tileBytes: local?.tileBytes ?? 0,
    memory: local?.memory ?? null,
    window: local?.window ?? null,
    experts: local?.experts ?? null,
    kvPages: local?.kvPages ?? 0,
    computeMicroseconds: local?.computeMicroseconds ?? 0,
    progress,
    link: roundTripMicroseconds === null ? null : { roundTripMicroseconds },
  };
}
