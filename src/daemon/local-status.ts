import * as v from 'valibot';
import type { DeviceInfo } from '../cluster/device.ts';
import type { PlanHost } from './plan-host.ts';
import { processMemory } from './memory-account.ts';
import type { DeviceStatus } from './status.ts';

/** What only the device itself knows; other devices ask for it over the control link. */
export type LocalStatus = Pick<DeviceStatus, 'tiles' | 'tileBytes' | 'memory' | 'window' | 'kvPages'> & {
  readonly saturated: number;
  readonly notes: readonly string[];
};

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
      streamedBytes: bytes,
      reads: bytes,
      waitMicroseconds: bytes,
    }),
  ),
  kvPages: bytes,
  saturated: bytes,
  notes: v.pipe(v.array(v.pipe(v.string(), v.maxLength(1000))), v.maxLength(32)),
});

export function localStatus(host: PlanHost, budgetBytes: number | null, notes: readonly string[]): LocalStatus {
  const open = host.current;
  const memory = { budgetBytes, account: { ...open?.account }, ...processMemory() };
  if (!open) return { tiles: 0, tileBytes: 0, memory, window: null, kvPages: 0, saturated: 0, notes };
  const { pinnedBytes, ringBytes, streamedBytes, reads, waitMicroseconds } = open.device.window.stats();
  return {
    tiles: open.tiles.order.length,
    tileBytes: open.tiles.order.reduce((sum, tile) => sum + open.model.manifest.tiles[tile]!.bytes, 0),
    memory,
    window: { pinnedBytes, ringBytes, streamedBytes, reads, waitMicroseconds },
    kvPages: open.device.kvPages,
    saturated: open.device.saturated,
    notes: [...notes, ...readNote(open.source.how)],
  };
}

/** Reading through the page cache costs memory that no budget sees. */
const readNote = (how: string): string[] =>
  how === 'buffered' ? ['Tiles are read through the page cache: this file system has no direct reads.'] : [];

/** A device of the cluster, with what it told of itself where it answered. */
export function deviceStatus(
  device: DeviceInfo,
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
    kvPages: local?.kvPages ?? 0,
    progress,
    link: roundTripMicroseconds === null ? null : { roundTripMicroseconds },
  };
}
