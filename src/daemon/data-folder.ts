import { randomUUID } from 'node:crypto';
import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as v from 'valibot';
import { PotluckError } from '../errors/errors.ts';
import { readIfThere, releaseLock, takeLock } from './process-lock.ts';

/** What a device keeps between runs. Only one daemon uses a folder at a time. */
export interface DataFolder {
  readonly path: string;
  /** Identity of this device: 32 hex digits. */
  readonly deviceId: string;
  release(): void;
}

const identitySchema = v.object({ id: v.pipe(v.string(), v.regex(/^[0-9a-f]{32}$/)) });

/** Makes the folder where it is missing and takes it. Throws DATA_FOLDER_IN_USE or DISK_WRITE. */
export function openDataFolder(path: string): DataFolder {
  try {
    mkdirSync(path, { recursive: true });
    takeFolder(path);
    const release = () => releaseLock(join(path, 'lock'));
    try {
      return { path, deviceId: identity(path), release };
    } catch (error) {
      release();
      throw error;
    }
  } catch (error) {
    if (error instanceof PotluckError) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new PotluckError('DISK_WRITE', `${path}: cannot be used as the data folder: ${reason}`, {
      cause: error,
    });
  }
}

function identity(folder: string): string {
  const path = join(folder, 'device.json');
  const text = readIfThere(path);
  const known = text === null ? null : v.safeParse(v.pipe(v.string(), v.parseJson(), identitySchema), text);
  if (known?.success) return known.output.id;
  const id = randomUUID().replaceAll('-', '');
  writeFileSync(`${path}.new`, `${JSON.stringify({ id })}\n`);
  renameSync(`${path}.new`, path);
  return id;
}

/** Throws DATA_FOLDER_IN_USE where another daemon has the folder. */
function takeFolder(folder: string): void {
  const owner = takeLock(join(folder, 'lock'));
  if (owner === null) return;
  throw new PotluckError(
    'DATA_FOLDER_IN_USE',
    `${folder}: another Potluck daemon (process ${owner}) uses this data folder. Stop it, or give this one its own: --data DIR`,
  );
}
