import { readFileSync, rmSync, writeFileSync } from 'node:fs';

/**
 * Takes a folder for this process: writes `lock` into it, with the process and when it started, so that a process number used again is
 * not taken for its owner. Returns null where it is taken now, else the number of the process that has it ('' for one that is
 * just starting). Throws what the file system does.
 */
export function takeLock(path: string): string | null {
  const mine = `${process.pid} ${startTime(process.pid) ?? ''}\n`;
  for (let tries = 0; tries < 3; tries++) {
    try {
      writeFileSync(path, mine, { flag: 'wx' });
      return null;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
    const [pid = '', started = ''] = (readIfThere(path) ?? '').trim().split(' ');
    if (/^\d+$/.test(pid) && isRunning(Number(pid), started)) return pid;
    rmSync(path, { force: true });
  }
  return '';
}

export const releaseLock = (path: string): void => rmSync(path, { force: true });

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
