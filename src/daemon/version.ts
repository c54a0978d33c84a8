import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as v from 'valibot';
import { projectRoot } from './project-root.ts';

const packageSchema = v.pipe(v.string(), v.parseJson(), v.object({ version: v.string() }));

/** The version in package.json: devices of other versions do not join. */
export const version: string = v.parse(
  packageSchema,
  readFileSync(join(projectRoot(), 'package.json'), 'utf8'),
).version;
