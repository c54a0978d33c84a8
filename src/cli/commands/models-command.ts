import type { Command } from 'commander';
import { asPotluckError, PotluckError } from '../../errors/errors.ts';
import { fetchStatus } from '../api-client.ts';
import { homeFolder } from '../home-folder.ts';
import type { InstalledModel } from '../installed-models.ts';
import { builtInModel } from '../project.ts';
import { formatBytes, textTable } from '../text-table.ts';
import { type AddressFlags, daemonUrl, withAddress } from './daemon-address.ts';

const places = () => ({ home: homeFolder(process.env), builtIn: builtInModel() });

export function addModelsCommand(program: Command): void {
  const models = withAddress(program.command('models'))
    .summary('the models of this machine; `models remove NAME`')
    .description(
      'Lists the models of this machine: packs that can be served with `potluck up --model NAME`, parts of models that\n' +
        'devices received from others, and unfinished downloads.',
    )
    .option('--json', 'the same as JSON')
    .action(async (flags: AddressFlags & { readonly json?: true }) => {
      const { listModels } = await import('../installed-models.ts');
      const served = await servedIds(flags);
      const rows = (await listModels(places())).map(model => ({
        ...model,
        served: model.id !== null && served.has(model.id),
      }));
      process.stdout.write(`${flags.json ? JSON.stringify(rows, null, 2) : modelsText(rows)}\n`);
    });
  models
    .command('remove')
    .summary('remove a model from this machine')
    .description('Removes a model: its pack, what devices of this machine received of it, and its downloads.')
    .argument('<name>', 'name or id, as `potluck models` shows it')
    .action(async (name: string, _flags: unknown, command: Command) => {
      const { listModels, removeModel } = await import('../installed-models.ts');
      const served = await servedIds(command.optsWithGlobals());
      const found = (await listModels(places())).filter(model => model.name === name || model.id === name);
      if (found.some(({ id }) => id !== null && served.has(id)))
        throw new PotluckError(
          'BUSY',
          `${name} is being served. Stop the daemon first, or serve another model`,
        );
      for (const { kind, folder, bytes } of await removeModel(name, places()))
        process.stdout.write(`Removed ${name} (${kind}, ${formatBytes(bytes)}) from ${folder}\n`);
    });
}

/** Ids of the models that the daemon at this address serves, and those of this machine that keep their data at home. */
async function servedIds(flags: AddressFlags): Promise<Set<string>> {
  const { devicePorts } = await import('../installed-models.ts');
  const ports = await devicePorts(places().home);
  const urls = new Set([daemonUrl(flags), ...ports.map(port => daemonUrl({ port }))]);
  const ids = await Promise.all([...urls].map(servedId));
  return new Set(ids.filter(id => id !== null));
}

/** Id of the model that a daemon serves; null where none runs, or it serves none. */
async function servedId(url: string): Promise<string | null> {
  try {
    return (await fetchStatus(url)).model?.id ?? null;
  } catch (error) {
    if (asPotluckError(error).code === 'NOT_RUNNING') return null;
    throw error;
  }
}

export function modelsText(models: readonly (InstalledModel & { readonly served: boolean })[]): string {
  const rows = models.map(model => [
    model.name,
    model.id ?? '',
    formatBytes(model.bytes),
    model.weights ?? '',
    model.tiles === null ? '' : `${model.tiles.here}/${model.tiles.total}`,
    model.problem === null ? model.kind : 'broken',
    model.served ? 'yes' : '',
    model.folder,
  ]);
  const problems = models.flatMap(({ name, problem }) => (problem === null ? [] : [`${name}: ${problem}`]));
  return [
    ...textTable([['NAME', 'ID', 'SIZE', 'WEIGHTS', 'TILES', 'KIND', 'SERVED', 'WHERE'], ...rows]),
    ...problems,
  ].join('\n');
}
