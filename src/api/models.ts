import type { ApiHost, ApiModel } from './host.ts';
import { FieldError } from './openai-errors.ts';

/** The model of that name. Rejects with UNKNOWN_MODEL, or NOT_READY while there is none. */
export async function findModel(host: ApiHost, name: string): Promise<ApiModel> {
  const model = await host.model();
  if (name === model.id || model.aliases.includes(name)) return model;
  const asked = name.slice(0, 100);
  throw new FieldError('UNKNOWN_MODEL', 'model', `There is no model "${asked}" here. Use "${model.id}".`);
}

/** A model as /v1/models shows it. */
export function describeModel(model: ApiModel): object {
  return { id: model.id, object: 'model', created: model.created, owned_by: 'potluck' };
}
