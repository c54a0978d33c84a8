import * as v from 'valibot';
import { PotluckError } from '../errors/errors.ts';
import type { TileEntry } from '../pack/manifest.ts';
import { deviceIdSchema, epochSchema, hostSchema, modelIdSchema, portSchema, text } from './device.ts';
import { decodeRuns, encodeRuns } from './run-length.ts';

/** Most devices of one plan. */
export const MAX_PLAN_DEVICES = 16;
/** Most tiles of one plan; a model of 70 billion weights has about 10,000. */
export const MAX_PLAN_TILES = 200_000;

export interface PlanDevice {
  readonly id: string;
  readonly name: string;
  readonly host: string;
  readonly linkPort: number;
}

/** Which device computes which tiles. */
export interface Plan {
  /** Rises with every change. */
  readonly epoch: number;
  readonly modelId: string;
  readonly hubId: string;
  /** Device 0 is the hub. */
  readonly devices: readonly PlanDevice[];
  /** Index into `devices` for each tile of the manifest. */
  readonly assignment: readonly number[];
}

/** The tiles of a manifest, as far as a plan needs them. */
export type PlannedTile = Pick<TileEntry, 'kind' | 'layer' | 'bytes'>;

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(MAX_PLAN_TILES));

/** A plan as it travels: the assignment as runs [device, tiles, device, tiles, ...]. */
export const planSchema = v.object({
  epoch: epochSchema,
  modelId: modelIdSchema,
  hubId: deviceIdSchema,
  devices: v.pipe(
    v.array(
      v.object({
        id: deviceIdSchema,
        name: text(64),
        host: hostSchema,
        linkPort: portSchema,
      }),
    ),
    v.minLength(1),
    v.maxLength(MAX_PLAN_DEVICES),
  ),
  runs: v.pipe(v.array(count), v.maxLength(2 * MAX_PLAN_TILES)),
});

export type PlanMessage = v.InferOutput<typeof planSchema>;

export const planToMessage = (plan: Plan): PlanMessage => ({
  epoch: plan.epoch,
  modelId: plan.modelId,
  hubId: plan.hubId,
  devices: plan.devices.map(({ id, name, host, linkPort }) => ({ id, name, host, linkPort })),
  runs: encodeRuns(plan.assignment),
});

const invalid = (reason: string): PotluckError =>
  new PotluckError(
    'PROTOCOL',
    `The plan is not valid: ${reason}. Run the same version of Potluck everywhere.`,
  );

/** The plan in a message whose schema was checked. Throws PROTOCOL where it contradicts itself. */
export function planFromMessage(message: PlanMessage): Plan {
  const { epoch, modelId, hubId, devices, runs } = message;
  const assignment = decodeRuns(runs, MAX_PLAN_TILES);
  if (assignment === null) throw invalid('its runs do not make an assignment');
  if (devices[0]?.id !== hubId) throw invalid('device 0 is not the hub');
  if (new Set(devices.map(d => d.id)).size !== devices.length) throw invalid('a device is in it twice');
  if (assignment.some(device => device >= devices.length))
    throw invalid('it names a device that is not in it');
  return { epoch, modelId, hubId, devices, assignment };
}

/** Throws PROTOCOL where `plan` is not for a model of these tiles. */
export function checkPlan(plan: Plan, tiles: readonly PlannedTile[]): void {
  if (plan.assignment.length !== tiles.length) {
    throw invalid(`it has ${plan.assignment.length} tiles and the model ${tiles.length}`);
  }
}

/** Tiles of one device, as rising indices into the manifest. */
export function tilesOf(plan: Plan, deviceIndex: number): number[] {
  const tiles: number[] = [];
  for (const [tile, device] of plan.assignment.entries()) if (device === deviceIndex) tiles.push(tile);
  return tiles;
}
