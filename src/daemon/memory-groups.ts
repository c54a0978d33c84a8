/**
 * The memory groups (cgroups) that a process of Linux is in, from its own up to the topmost: a limit holds for all below it.
 * Interface: the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
 */

/** The text of a file of /proc or /sys; null where there is none that may be read. */
export type ReadText = (path: string) => string | null;

/** What one group with a limit says of its memory. */
export interface LimitedGroup {
  readonly limitBytes: number;
  /** Counted for all processes of the group, less the file pages that it may drop; null where that cannot be read. */
  readonly usedBytes: number | null;
  /** Part of the last ten seconds in which some process of the group waited for memory, 0 to 1; 0 where it is not told. */
  readonly pressure: number;
}

interface Interface {
  /** Where groups are mounted. */
  readonly mount: string;
  /** Files with limits; the least counts. */
  readonly limits: readonly string[];
  readonly usage: string;
  /** Line of memory.stat with the file pages that may be dropped. */
  readonly droppable: string;
  /** File with the pressure; null: there is none. */
  readonly pressure: string | null;
}

const VERSION_2: Interface = {
  mount: '/sys/fs/cgroup',
  // over `high` a group is not killed, and made so slow that it may as well be
  limits: ['memory.max', 'memory.high'],
  usage: 'memory.current',
  droppable: 'inactive_file',
  pressure: 'memory.pressure',
};
const VERSION_1: Interface = {
  mount: '/sys/fs/cgroup/memory',
  limits: ['memory.limit_in_bytes'],
  usage: 'memory.usage_in_bytes',
  droppable: 'total_inactive_file',
  pressure: null,
};
/** Version 1 says so where there is no limit: 2^63, less a page. */
const NO_LIMIT = 2 ** 62;

/** The groups with a limit that this process is in, its own first. Of two versions at a time memory is under one alone. */
export function limitedGroups(read: ReadText): LimitedGroup[] {
  const groups = read('/proc/self/cgroup') ?? '';
  const v2 = /^0::(\/.*)$/m.exec(groups)?.[1];
  const v1 = /^\d+:(?:[^:\n]*,)?memory(?:,[^:\n]*)?:(\/.*)$/m.exec(groups)?.[1];
  return [
    ...(v1 === undefined ? [] : limitsAbove(read, VERSION_1, v1)),
    ...(v2 === undefined ? [] : limitsAbove(read, VERSION_2, v2)),
  ];
}

function limitsAbove(read: ReadText, files: Interface, path: string): LimitedGroup[] {
  // In a container the path may be that of the host, of which only the topmost part, the container itself, is mounted.
  const parts = path.split('/').filter(part => part !== '');
  const visible = parts.includes('..') ? [] : parts;
  const found: LimitedGroup[] = [];
  for (let depth = visible.length; depth >= 0; depth--) {
    const group = groupAt(read, files, [files.mount, ...visible.slice(0, depth)].join('/'));
    if (group) found.push(group);
  }
  return found;
}

function groupAt(read: ReadText, files: Interface, folder: string): LimitedGroup | null {
  const limits = files.limits.map(name => wholeNumber(read(`${folder}/${name}`)) ?? Infinity);
  const limitBytes = Math.min(...limits);
  if (limitBytes >= NO_LIMIT) return null;
  const used = wholeNumber(read(`${folder}/${files.usage}`));
  const stat = read(`${folder}/memory.stat`) ?? '';
  const line = new RegExp(`^${files.droppable} (\\d+)$`, 'm').exec(stat);
  const droppable = wholeNumber(line?.[1] ?? null) ?? 0;
  return {
    limitBytes,
    usedBytes: used === null ? null : Math.max(0, used - droppable),
    pressure: files.pressure === null ? 0 : pressureOf(read(`${folder}/${files.pressure}`)),
  };
}

/** Part of the last ten seconds in which some program waited, of a file of pressure stall information (PSI), 0 to 1. */
export function pressureOf(text: string | null): number {
  const some = /^some avg10=(\d+(?:\.\d+)?) /m.exec(text ?? '');
  return some ? Math.min(1, Number(some[1]) / 100) : 0;
}

/** A file that is one number; null for 'max' and whatever else is none. */
function wholeNumber(text: string | null): number | null {
  return text !== null && /^\d{1,19}\s*$/.test(text) ? Number(text) : null;
}
