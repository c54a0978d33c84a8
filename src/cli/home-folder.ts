import { homedir } from 'node:os';
import { join, resolve } from 'node:path';

export type Environment = Readonly<Record<string, string | undefined>>;

/** Where Potluck keeps what it is given: POTLUCK_HOME, or ~/.potluck. */
export function homeFolder(env: Environment): string {
  const home = env.POTLUCK_HOME;
  return resolve(home === undefined || home === '' ? join(homedir(), '.potluck') : home);
}

/** Packs by their names: what was pulled. */
export const modelsFolder = (home: string): string => join(home, 'models');

/** What is being pulled; `--keep` leaves checkpoints there. */
export const downloadsFolder = (home: string): string => join(home, 'downloads');
