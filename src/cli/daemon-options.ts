import { hostname } from 'node:os';
import { join, resolve } from 'node:path';
import type { DaemonOptions } from '../daemon/options.ts';
import { asPotluckError, PotluckError } from '../errors/errors.ts';
import { defaultThreads } from './default-threads.ts';
import { type Environment, homeFolder, modelsFolder } from './home-folder.ts';
import type { HostAndPort } from './option-values.ts';

export const DEFAULT_API_PORT = 11500;

/** Options of `potluck up` as they were given. */
export interface UpFlags {
  readonly port: number;
  readonly host: string;
  readonly linkPort?: number;
  readonly data?: string;
  readonly model?: string;
  readonly memory?: number | 'auto';
  readonly threads?: number;
  readonly share?: number;
  readonly name?: string;
  readonly cluster: string;
  readonly peer: readonly HostAndPort[];
  readonly discovery: boolean;
  readonly advertise?: HostAndPort;
  readonly maxTokens?: number;
  readonly drafts: boolean;
  readonly backend: DaemonOptions['backend'];
  readonly kernel?: string;
  readonly window?: number;
  readonly disk?: number;
}

/** What the defaults depend on. */
export interface Surroundings {
  readonly env: Environment;
  readonly builtInModel: string;
  /** The folder of the pack that a name or path means. Rejects with PACK_NOT_FOUND. */
  findModel(text: string): Promise<string>;
  /** The model that the device with this data folder was last told to serve; null: none. */
  rememberedModel(dataFolder: string): string | null;
  /** Tells the user something once. */
  say(text: string): void;
  /** Whether nothing listens at a port of this machine yet. */
  isFree(port: number): Promise<boolean>;
}

/** Fills in the defaults. Throws BAD_OPTION where options contradict each other. */
export async function daemonOptions(flags: UpFlags, surroundings: Surroundings): Promise<DaemonOptions> {
  if (flags.port !== 0 && flags.port === flags.linkPort) {
    throw new PotluckError(
      'BAD_OPTION',
      `--port and --link-port are both ${flags.port}: give two different ports`,
    );
  }
  const folder = dataFolder(flags, surroundings);
  return {
    apiHost: flags.host,
    apiPort: flags.port,
    linkPort: flags.linkPort ?? (await defaultLinkPort(flags.port, surroundings)),
    dataFolder: folder,
    model: await model(flags, folder, surroundings),
    modelsFolder: modelsFolder(homeFolder(surroundings.env)),
    memory: flags.memory ?? null,
    threads: flags.threads ?? defaultThreads(),
    share: flags.share ?? null,
    name: flags.name ?? defaultName(flags.port),
    cluster: flags.cluster,
    peers: flags.peer,
    discovery: flags.discovery,
    advertiseHost: flags.advertise?.host ?? null,
    advertisePort: flags.advertise?.port ?? null,
    maxTokens: flags.maxTokens ?? null,
    drafts: flags.drafts,
    backend: flags.backend,
    kernel: flags.kernel ?? null,
    windowBytes: flags.window ?? null,
    diskBytes: flags.disk ?? null,
  };
}

/** The port after the API's, so that a firewall needs one rule for both; any free one where that is taken. */
async function defaultLinkPort(apiPort: number, { isFree }: Surroundings): Promise<number> {
  const next = apiPort + 1;
  return apiPort > 0 && next <= 65535 && (await isFree(next)) ? next : 0;
}

/** One folder for each API port: several daemons of a machine keep apart, and each finds its own again. */
function dataFolder(flags: UpFlags, { env }: Surroundings): string {
  if (flags.data !== undefined) return resolve(flags.data);
  if (flags.port === 0) throw new PotluckError('BAD_OPTION', '--port 0 (any free port) needs --data FOLDER');
  return join(homeFolder(env), `device-${flags.port}`);
}

/** The model that was given now or the last time, else the one that comes along. */
async function model(flags: UpFlags, folder: string, surroundings: Surroundings): Promise<string> {
  const wanted = flags.model ?? surroundings.rememberedModel(folder);
  if (wanted === null) return surroundings.builtInModel;
  if (wanted === 'none') return 'none';
  try {
    return await surroundings.findModel(wanted);
  } catch (error) {
    if (flags.model !== undefined || asPotluckError(error).code !== 'PACK_NOT_FOUND') throw error;
    surroundings.say(
      `The model that was served the last time is gone (${wanted}): serving the built-in one.`,
    );
    return surroundings.builtInModel;
  }
}

const defaultName = (port: number): string => {
  const host = hostname().split('.')[0] ?? 'device';
  return port === DEFAULT_API_PORT ? host : `${host}-${port}`;
};
