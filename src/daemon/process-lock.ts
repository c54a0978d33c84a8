import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

/** What follows a lock's path in the names of its files: process and when it started, so that a process number used again is told apart. */
const HOLDER = /^\.(\d+)-(\d*)$/;

/**
 * Takes `path` for this process: makes a file of its own beside it, and looks for those of others. The name alone says whose a file is, so
 * there is no moment at which it does not, and one whose process ended can be removed without hitting another's. Returns null where `path` is
 * taken now, else the number of the process that has it. Of two that come at the same moment both may be told so. Throws what the file system does.
 */
export function takeLock(path: string): string | null {
  const mine = ownFile(path);
  try {
    writeFileSync(mine, '', { flag: 'wx' });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return String(process.pid);
    throw error;
  }
  try {
    const owner = otherHolder(path, basename(mine));
    if (owner !== null) rmSync(mine);
    return owner;
  } catch (error) {
    rmSync(mine, { force: true });
    throw error;
  }
}

export const releaseLock = (path: string): void => rmSync(ownFile(path), { force: true });

/** Whether a file of that name may be one of a lock whose path ends with `ending`. */
export function isLockFile(name: string, ending: string): boolean {
  const at = name.lastIndexOf(`${ending}.`);
  return at >= 0 && HOLDER.test(name.slice(at + ending.length));
}

const ownFile = (path: string): string => `${path}.${process.pid}-${startTime(process.pid) ?? ''}`;

/** Another process that has `path`, or null; files of those that ended are removed. */
function otherHolder(path: string, mine: string): string | null {
  const prefix = basename(path);
  let owner: string | null = null;
  for (const name of readdirSync(dirname(path))) {
    const [, pid, started] = (name.startsWith(prefix) && HOLDER.exec(name.slice(prefix.length))) || [];
    if (pid === undefined || name === mine) continue;
    if (isRunning(Number(pid), started!)) owner = pid;
    else rmSync(join(dirname(path), name), { force: true });
  }
  return owner;
}

/** The text of a file; null where it is not there. */
export function readIfThere(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return null;
    throw error;
  }
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
