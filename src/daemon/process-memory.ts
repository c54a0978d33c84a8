import { readFileSync } from 'node:fs';
import { totalmem } from 'node:os';

/** What the operating system counts, for this process and for the machine. */

export interface ProcessMemory {
  /** Bytes of the process in memory now. */
  readonly residentBytes: number;
  /** And at their highest. */
  readonly highWaterBytes: number;
}

export function processMemory(): ProcessMemory {
  const status = readIfThere('/proc/self/status');
  const now = kilobytes(status, 'VmRSS');
  const high = kilobytes(status, 'VmHWM');
  if (now !== null && high !== null) return { residentBytes: now, highWaterBytes: Math.max(now, high) };
  const residentBytes = process.memoryUsage.rss();
  return { residentBytes, highWaterBytes: Math.max(residentBytes, process.resourceUsage().maxRSS * 1024) };
}

export interface SystemMemory {
  /** Bytes that programs may still take without others suffering: of the machine, or of the memory group where that is less. */
  readonly availableBytes: number;
  /** Part of the last ten seconds in which some program waited for memory, 0 to 1; 0 where the system does not tell. */
  readonly pressure: number;
}

export function systemMemory(): SystemMemory {
  const machine = kilobytes(readIfThere('/proc/meminfo'), 'MemAvailable') ?? process.availableMemory();
  return { availableBytes: Math.min(machine, groupAvailable()), pressure: pressure() };
}

/** What the memory group of this process has left; Infinity where there is no limit. */
function groupAvailable(): number {
  const limit = process.constrainedMemory();
  if (!(limit > 0 && limit < totalmem())) return Infinity;
  const used = groupUsed();
  return used === null ? process.availableMemory() : Math.max(0, limit - used);
}

/** Bytes that the memory group counts, less the file pages that it may drop; versions 2 and 1. */
function groupUsed(): number | null {
  for (const { folder, usage, droppable } of groupFolders()) {
    const used = Number(readIfThere(`${folder}/${usage}`) ?? Number.NaN);
    const inactive = new RegExp(`^${droppable} (\\d+)$`, 'm').exec(
      readIfThere(`${folder}/memory.stat`) ?? '',
    );
    if (Number.isFinite(used)) return Math.max(0, used - Number(inactive?.[1] ?? 0));
  }
  return null;
}

function groupFolders(): { folder: string; usage: string; droppable: string }[] {
  const groups = readIfThere('/proc/self/cgroup') ?? '';
  const v2 = /^0::(.*)$/m.exec(groups)?.[1];
  const v1 = /^\d+:(?:[^:]*,)?memory(?:,[^:]*)?:(.*)$/m.exec(groups)?.[1];
  return [
    ...(v2 === undefined
      ? []
      : [{ folder: `/sys/fs/cgroup${v2}`, usage: 'memory.current', droppable: 'inactive_file' }]),
    ...(v1 === undefined
      ? []
      : [
          {
            folder: `/sys/fs/cgroup/memory${v1}`,
            usage: 'memory.usage_in_bytes',
            droppable: 'total_inactive_file',
          },
        ]),
  ];
}

function pressure(): number {
  const some = /^some avg10=([\d.]+)/m.exec(readIfThere('/proc/pressure/memory') ?? '');
  return some ? Number(some[1]) / 100 : 0;
}

function kilobytes(text: string | null, name: string): number | null {
  const line = text && new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(text);
  return line ? Number(line[1]) * 1024 : null;
}

/** A file of /proc or /sys; null where this system has it not, or does not let it be read. */
function readIfThere(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (['ENOENT', 'EACCES', 'EOPNOTSUPP', 'EINVAL'].includes((error as NodeJS.ErrnoException).code ?? ''))
      return null;
    throw error;
  }
}
