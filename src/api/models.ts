import type { ApiHost, ApiModel, ListedModel } from './host.ts';
import { FieldError } from './openai-errors.ts';

/** Names that are told where one is not known. */
const MOST_NAMED = 20;

/** The listed model of that name or alias. Rejects with UNKNOWN_MODEL, or NOT_READY while there is none. */
export async function findListed(host: ApiHost, name: string): Promise<ListedModel> {
  const models = await host.models();
  const found = models.find(({ id }) => id === name) ?? models.find(({ aliases }) => aliases.includes(name));
  if (found !== undefined) return found;
  const asked = name.slice(0, 100);
  const others = models.slice(0, MOST_NAMED).map(({ id }) => `"${id}"`);
  throw new FieldError(
    'UNKNOWN_MODEL',
    'model',
    `There is no model "${asked}" here. Use ${others.join(', ')}${models.length > MOST_NAMED ? ', ...' : ''}.`,
  );
}

/** The model of that name, opened. Rejects as findListed, and as its `open`. */
export async function findModel(host: ApiHost, name: string): Promise<ApiModel> {
  return (await findListed(host, name)).open();
}

/** A model as /v1/models shows it. */
export function describeModel({ id, created }: ListedModel): object {
  return { id, object: 'model', created, owned_by: 'potluck' };
}
