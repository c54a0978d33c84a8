import { randomUUID } from 'node:crypto';
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as v from 'valibot';
import { PotluckError } from '../errors/errors.ts';

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
    takeLock(path);
    return { path, deviceId: identity(path), release: () => rmSync(join(path, 'lock'), { force: true }) };
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

/** The lock names the process and when it started, so a process number used again is not taken for its owner. */
function takeLock(folder: string): void {
  const path = join(folder, 'lock');
  const mine = `${process.pid} ${startTime(process.pid) ?? ''}\n`;
  for (let tries = 0; tries < 3; tries++) {
    try {
      writeFileSync(path, mine, { flag: 'wx' });
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
    const [pid = '', started = ''] = (readIfThere(path) ?? '').trim().split(' ');
    if (/^\d+$/.test(pid) && isRunning(Number(pid), started))
      throw new PotluckError(
        'DATA_FOLDER_IN_USE',
        `${folder}: another Potluck daemon (process ${pid}) uses this data folder. Stop it, or give this one its own: --data DIR`,
      );
    rmSync(path, { force: true });
  }
  throw new PotluckError(
    'DATA_FOLDER_IN_USE',
    `${folder}: another daemon is starting with this data folder.`,
  );
}

function isRunning(pid: number, started: string): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
  }
  const now = startTime(pid);
  return now === null || started === '' || now === started;
}

/** When a process started, in the kernel's ticks; null where /proc does not tell. */
function startTime(pid: number): string | null {
  const stat = readIfThere(`/proc/${pid}/stat`);
  return stat?.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? null;
}

function readIfThere(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return null;
    throw error;
  }
}
