import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { projectRoot } from '../daemon/project-root.ts';
import { PotluckError } from '../errors/errors.ts';

/** The model that comes with the project. */
export const builtInModel = (): string => join(projectRoot(), 'models', 'potluck-36m');

/** The compiled command line, for child processes. */
export function compiledMain(): string {
  const path = join(projectRoot(), 'build', 'js', 'cli', 'main.js');
  if (existsSync(path)) return path;
  throw new PotluckError('NOT_READY', `${path} is missing: run \`npm run setup\` first`);
}

/** Test data beside the project: texts, reference values. */
export const sharedFolder = (name: string): string => join(dirname(projectRoot()), 'shared', name);
