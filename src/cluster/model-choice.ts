import * as v from 'valibot';
import { epochSchema, modelIdSchema } from './device.ts';

/** Which model the cluster computes; the hub changes it, by demand. Every device keeps the best that it has heard of. */
export interface ModelChoice {
  /** Rises with every change. */
  readonly turn: number;
  readonly modelId: string;
}

export const modelChoiceSchema = v.object({ turn: epochSchema, modelId: modelIdSchema });

/** The later of two; of two that were made at once the one with the lower id, so that all devices come to the same. */
export function betterChoice(a: ModelChoice | null, b: ModelChoice | null): ModelChoice | null {
  if (a === null || b === null) return a ?? b;
  if (a.turn !== b.turn) return a.turn > b.turn ? a : b;
  return a.modelId <= b.modelId ? a : b;
}

/** A model that some device of the cluster holds completely. */
export interface ClusterModel {
  readonly id: string;
  readonly name: string;
  /** Ids of the devices that hold it. */
  readonly holders: readonly string[];
}

interface Holder {
  readonly id: string;
  readonly models: readonly { readonly id: string; readonly name: string }[];
}

/** The models of these devices, by name. Of several with one name each but the first is named 'NAME@' and the start of its id. */
export function modelsOf(devices: readonly Holder[]): ClusterModel[] {
  const found = new Map<string, { id: string; name: string; holders: string[] }>();
  for (const device of devices)
    for (const { id, name } of device.models) {
      const model = found.get(id) ?? { id, name, holders: [] };
      found.set(id, model);
      model.holders.push(device.id);
    }
  const models = [...found.values()].sort((a, b) => compare(a.name, b.name) || compare(a.id, b.id));
  return models.map((model, i) =>
    models.findIndex(({ name }) => name === model.name) === i
      ? model
      : { ...model, name: `${model.name}@${model.id.slice(0, 8)}` },
  );
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);
