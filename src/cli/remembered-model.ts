import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as v from 'valibot';
import { readIfThere } from '../daemon/process-lock.ts';

const FILE = 'model.json';
const schema = v.pipe(v.string(), v.parseJson(), v.object({ model: v.pipe(v.string(), v.minLength(1)) }));

/** The `--model` that this device was last started with; null: none was given yet. */
export function rememberedModel(dataFolder: string): string | null {
  const text = readIfThere(join(dataFolder, FILE));
  const parsed = text === null ? null : v.safeParse(schema, text);
  return parsed?.success ? parsed.output.model : null;
}

/** The folder is there: a daemon with it runs. */
export function rememberModel(dataFolder: string, model: string): void {
  const path = join(dataFolder, FILE);
  writeFileSync(`${path}.new`, `${JSON.stringify({ model })}\n`);
  renameSync(`${path}.new`, path);
}
