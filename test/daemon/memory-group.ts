import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** A memory group of the system's own, with a hard limit: who takes more is killed. */
export interface MemoryGroup {
  /** 1 or 2: of the kernel's interface. */
  readonly version: number;
  add(pid: number): void;
  /** How often the kernel killed a process of the group. */
  kills(): number;
  remove(): void;
}

const V1 = '/sys/fs/cgroup/memory';
const V2 = '/sys/fs/cgroup';

/** Null, with the reason said, where this system does not let one be made. */
export function makeMemoryGroup(name: string, bytes: number): MemoryGroup | null {
  const version = existsSync(join(V2, 'cgroup.controllers')) ? 2 : existsSync(join(V1, 'tasks')) ? 1 : 0;
  try {
    if (version === 2) return groupV2(join(V2, name), bytes);
    if (version === 1) return groupV1(join(V1, name), bytes);
    process.stderr.write('No memory groups on this system: nothing is tested inside one.\n');
  } catch (error) {
    process.stderr.write(
      `No memory group can be made here (${String(error)}): nothing is tested inside one.\n`,
    );
  }
  return null;
}

function groupV1(folder: string, bytes: number): MemoryGroup {
  mkdirSync(folder);
  writeFileSync(join(folder, 'memory.limit_in_bytes'), String(bytes));
  return {
    version: 1,
    add: pid => writeFileSync(join(folder, 'cgroup.procs'), String(pid)),
    kills: () => numberAfter('oom_kill', readFileSync(join(folder, 'memory.oom_control'), 'utf8')),
    remove: () => rmdirSync(folder),
  };
}

function groupV2(folder: string, bytes: number): MemoryGroup {
  writeFileSync(join(V2, 'cgroup.subtree_control'), '+memory');
  mkdirSync(folder);
  writeFileSync(join(folder, 'memory.max'), String(bytes));
  if (existsSync(join(folder, 'memory.swap.max'))) writeFileSync(join(folder, 'memory.swap.max'), '0');
  return {
    version: 2,
    add: pid => writeFileSync(join(folder, 'cgroup.procs'), String(pid)),
    kills: () => numberAfter('oom_kill', readFileSync(join(folder, 'memory.events'), 'utf8')),
    remove: () => rmdirSync(folder),
  };
}

function numberAfter(name: string, text: string): number {
  const line = new RegExp(`^${name} (\\d+)$`, 'm').exec(text);
  if (!line) throw new Error(`No ${name} in: ${text}`);
  return Number(line[1]);
}
