import { readFileSync } from 'node:fs';
import { limitedGroups, pressureOf, type ReadText } from './memory-groups.ts';

/** What the operating system counts, for this process and for the machine. */

/** Where that is asked. */
export interface MemoryReaders {
  /** Linux tells in files; elsewhere there are none. */
  readonly read: ReadText;
  /** What every platform tells, in bytes: of this process now, at its highest, and what the machine can spare. */
  readonly residentBytes: () => number;
  readonly highWaterBytes: () => number;
  readonly availableBytes: () => number;
}

export interface ProcessMemory {
  /** Bytes of the process in memory now. */
  readonly residentBytes: number;
  /** And at their highest. */
  readonly highWaterBytes: number;
}

export function processMemory(readers: MemoryReaders = THIS_SYSTEM): ProcessMemory {
  const status = readers.read('/proc/self/status');
  const residentBytes = kilobytes(status, 'VmRSS') ?? readers.residentBytes();
  const highest = kilobytes(status, 'VmHWM') ?? readers.highWaterBytes();
  return { residentBytes, highWaterBytes: Math.max(residentBytes, highest) };
}

export interface SystemMemory {
  /** Bytes that programs may still take without others suffering: of the machine, or of a memory group where that is less. */
  readonly availableBytes: number;
  /**
   * Part of the last ten seconds in which some program of the machine, or of a memory group with a limit, waited for memory, 0 to
   * 1; 0 where the system does not tell.
   */
  readonly pressure: number;
}

export function systemMemory(readers: MemoryReaders = THIS_SYSTEM): SystemMemory {
  const { read } = readers;
  const machine = kilobytes(read('/proc/meminfo'), 'MemAvailable') ?? readers.availableBytes();
  const groups = limitedGroups(read);
  // A group that does not tell what it uses has this process at the least.
  const own = groups.some(group => group.usedBytes === null) ? processMemory(readers).residentBytes : 0;
  const left = groups.map(({ limitBytes, usedBytes }) => Math.max(0, limitBytes - (usedBytes ?? own)));
  return {
    availableBytes: Math.min(machine, ...left),
    pressure: Math.max(pressureOf(read('/proc/pressure/memory')), ...groups.map(({ pressure }) => pressure)),
  };
}

function kilobytes(text: string | null, name: string): number | null {
  const line = text && new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(text);
  return line ? Number(line[1]) * 1024 : null;
}

/** A file of /proc or /sys; null where this system has it not, or does not let it be read. */
export function readSystemFile(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== undefined) return null;
    throw error;
  }
}

const THIS_SYSTEM: MemoryReaders = {
  read: readSystemFile,
  residentBytes: () => process.memoryUsage.rss(),
  highWaterBytes: () => process.resourceUsage().maxRSS * 1024,
  availableBytes: () => process.availableMemory(),
};
