import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { limitedGroups, pressureOf } from '../../src/daemon/memory-groups.ts';
import {
  type MemoryReaders,
  processMemory,
  readSystemFile,
  systemMemory,
} from '../../src/daemon/process-memory.ts';

const MIB = 1 << 20;
const GIB = 2 ** 30;
const MEMINFO = 'MemTotal:       16000000 kB\nMemFree:  1 kB\nMemAvailable:    8388608 kB\n';
const STATUS = 'Name:\tnode\nVmPeak:\t  999 kB\nVmHWM:\t  204800 kB\nVmRSS:\t  102400 kB\n';
const psi = (percent: string) =>
  `some avg10=${percent} avg60=0.00 avg300=0.00 total=1\nfull avg10=99.00 avg60=0.00 avg300=0.00 total=1\n`;
const NONE = '9223372036854771712\n';

/** A system whose files lie below a folder of their own; `files`: text by path. */
function system(files: Readonly<Record<string, string>>): MemoryReaders {
  const root = mkdtempSync(join(tmpdir(), 'potluck-system-'));
  onTestFinished(() => rmSync(root, { recursive: true }));
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  return {
    read: path => readSystemFile(join(root, path)),
    residentBytes: () => 50 * MIB,
    highWaterBytes: () => 70 * MIB,
    availableBytes: () => 3 * GIB,
  };
}

const linux = (files: Readonly<Record<string, string>>) =>
  system({ '/proc/meminfo': MEMINFO, '/proc/self/status': STATUS, ...files });

/** The files of a group below `folder`. */
function group(folder: string, files: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(files).map(([name, text]) => [`${folder}/${name}`, text]));
}
const v2 = (path: string, max: string, current: number, more: Record<string, string> = {}) =>
  group(`/sys/fs/cgroup${path}`, {
    'memory.max': `${max}\n`,
    'memory.current': `${current}\n`,
    'memory.stat': 'anon 1\ninactive_file 1048576\nactive_file 7\n',
    ...more,
  });
const v1 = (path: string, limit: string, usage: number) =>
  group(`/sys/fs/cgroup/memory${path}`, {
    'memory.limit_in_bytes': limit,
    'memory.usage_in_bytes': `${usage}\n`,
    'memory.stat': 'inactive_file 5\ntotal_inactive_file 2097152\n',
  });
const available = (files: Record<string, string>) => systemMemory(linux(files)).availableBytes;

describe('memory of the system, version 2', () => {
  const own = { '/proc/self/cgroup': '0::/home.slice/potluck\n' };

  test('a limit of the own group, less what is used, plus what may be dropped', () => {
    expect(available({ ...own, ...v2('/home.slice/potluck', `${400 * MIB}`, 100 * MIB) })).toBe(301 * MIB);
    expect(available({ ...own, ...v2('/home.slice/potluck', `${400 * MIB}`, 500 * MIB) })).toBe(0);
  });

  test('"max" is no limit; then the machine counts', () => {
    expect(available({ ...own, ...v2('/home.slice/potluck', 'max', 100 * MIB) })).toBe(8 * GIB);
  });

  test('a limit of a group above counts, with what all below it use', () => {
    const above = v2('/home.slice', `${600 * MIB}`, 500 * MIB);
    expect(available({ ...own, ...v2('/home.slice/potluck', 'max', 100 * MIB), ...above })).toBe(101 * MIB);
    const tighter = v2('/home.slice/potluck', `${150 * MIB}`, 100 * MIB);
    expect(available({ ...own, ...tighter, ...above })).toBe(51 * MIB);
    // a group that has no files of its own: memory is not handed down so far
    expect(available({ ...own, ...above })).toBe(101 * MIB);
  });

  test('memory.high is a limit too', () => {
    const high = { 'memory.high': `${300 * MIB}\n` };
    expect(available({ ...own, ...v2('/home.slice/potluck', `${400 * MIB}`, 100 * MIB, high) })).toBe(
      201 * MIB,
    );
    const none = { 'memory.high': 'max\n' };
    expect(available({ ...own, ...v2('/home.slice/potluck', `${400 * MIB}`, 100 * MIB, none) })).toBe(
      301 * MIB,
    );
  });

  test('in a container the group is the mounted root, whatever its path is outside', () => {
    const root = v2('', `${400 * MIB}`, 100 * MIB);
    for (const path of ['/', '/docker/0123', '/../other', '/gone (deleted)'])
      expect(available({ '/proc/self/cgroup': `0::${path}\n`, ...root }), path).toBe(301 * MIB);
  });

  test('a path never leads out of the mounted folder', () => {
    const outside = group('/sys/fs/outside', { 'memory.max': '1\n', 'memory.current': '1\n' });
    expect(available({ '/proc/self/cgroup': '0::/../outside\n', ...outside })).toBe(8 * GIB);
  });

  test('pressure of a group with a limit counts where it is more than that of the machine', () => {
    const pressure = (limit: string, own_: string, machine: string) =>
      systemMemory(
        linux({
          ...own,
          ...v2('/home.slice/potluck', limit, 1, { 'memory.pressure': psi(own_) }),
          '/proc/pressure/memory': psi(machine),
        }),
      ).pressure;
    expect(pressure(`${GIB}`, '25.50', '3.00')).toBeCloseTo(0.255);
    expect(pressure(`${GIB}`, '2.00', '3.00')).toBeCloseTo(0.03);
    expect(pressure('max', '25.50', '3.00')).toBeCloseTo(0.03);
  });
});

describe('memory of the system, version 1', () => {
  const own = { '/proc/self/cgroup': '5:cpu,cpuacct:/x\n4:memory:/box/inner\n1:name=systemd:/y\n0::/\n' };

  test('a limit of the own group, and of one above', () => {
    const inner = v1('/box/inner', `${400 * MIB}\n`, 100 * MIB);
    expect(available({ ...own, ...inner })).toBe(302 * MIB);
    expect(available({ ...own, ...inner, ...v1('/box', `${450 * MIB}\n`, 440 * MIB) })).toBe(12 * MIB);
    expect(available({ ...own, ...inner, ...v1('/box', NONE, 440 * MIB) })).toBe(302 * MIB);
    expect(available({ ...own, ...v1('/box/inner', NONE, 1), ...v1('', NONE, 2) })).toBe(8 * GIB);
  });

  test('memory beside other controllers of one mount', () => {
    const inner = v1('/a', `${400 * MIB}\n`, 100 * MIB);
    expect(available({ '/proc/self/cgroup': '3:cpuset,memory,hugetlb:/a\n', ...inner })).toBe(302 * MIB);
    expect(available({ '/proc/self/cgroup': '3:memory_other:/a\n', ...inner })).toBe(8 * GIB);
  });

  test('a container that sees its own group as the root', () => {
    const root = v1('', `${400 * MIB}\n`, 100 * MIB);
    expect(available({ '/proc/self/cgroup': '4:memory:/docker/0123\n', ...root })).toBe(302 * MIB);
  });
});

describe('files that are missing or make no sense', () => {
  const own = { '/proc/self/cgroup': '0::/a\n' };

  test('a group without memory.stat may drop nothing', () => {
    const { '/sys/fs/cgroup/a/memory.stat': _, ...rest } = v2('/a', `${400 * MIB}`, 100 * MIB);
    expect(available({ ...own, ...rest })).toBe(300 * MIB);
  });

  test('a group that does not say what it uses has this process at the least', () => {
    const only = (current: Record<string, string>) => ({
      ...own,
      ...group('/sys/fs/cgroup/a', { 'memory.max': `${400 * MIB}\n`, ...current }),
    });
    expect(available(only({}))).toBe(300 * MIB);
    for (const text of ['', '\n', 'x\n', '-5\n', '1e9\n', `${'9'.repeat(30)}\n`])
      expect(available(only({ 'memory.current': text })), JSON.stringify(text)).toBe(300 * MIB);
  });

  test('a limit that is no number is none', () => {
    for (const text of ['', 'MAX\n', '12 34\n', '0x10\n', `${'9'.repeat(30)}\n`])
      expect(available({ ...own, ...v2('/a', text, 1) }), JSON.stringify(text)).toBe(8 * GIB);
  });

  test('lists of groups that are none', () => {
    const root = v2('', `${400 * MIB}`, 100 * MIB);
    for (const text of ['', 'garbage', '0:/a\n', '::\n', '0::a\n'])
      expect(available({ '/proc/self/cgroup': text, ...root }), text).toBe(8 * GIB);
    expect(limitedGroups(linux({ ...root }).read)).toEqual([]);
  });

  test('a folder where a file should be', () => {
    expect(available({ ...own, ...group('/sys/fs/cgroup/a/memory.max', { x: '1' }) })).toBe(8 * GIB);
  });

  test('pressure', () => {
    expect(pressureOf(psi('12.34'))).toBeCloseTo(0.1234);
    expect(pressureOf(psi('250.00'))).toBe(1);
    for (const text of [null, '', 'some avg10=x avg60=1\n', 'full avg10=50.00 avg60=0\n', psi('-3')])
      expect(pressureOf(text)).toBe(0);
    expect(systemMemory(linux({})).pressure).toBe(0);
  });
});

describe('other systems', () => {
  test('macOS and Windows: no such files, what the runtime tells', () => {
    const bare = system({});
    expect(systemMemory(bare)).toEqual({ availableBytes: 3 * GIB, pressure: 0 });
    expect(processMemory(bare)).toEqual({ residentBytes: 50 * MIB, highWaterBytes: 70 * MIB });
  });

  test('a Linux that hides a part of it', () => {
    const readers = system({
      '/proc/meminfo': 'MemFree: 5 kB\n',
      '/proc/self/status': 'VmRSS:\t102400 kB\n',
    });
    expect(systemMemory(readers).availableBytes).toBe(3 * GIB);
    expect(processMemory(readers)).toEqual({ residentBytes: 100 * MIB, highWaterBytes: 100 * MIB });
  });

  test('this one tells something', () => {
    const { residentBytes, highWaterBytes } = processMemory();
    expect(residentBytes).toBeGreaterThan(20 * MIB);
    expect(highWaterBytes).toBeGreaterThanOrEqual(residentBytes);
    const { availableBytes, pressure } = systemMemory();
    expect(availableBytes).toBeGreaterThan(0);
    expect(pressure).toBeGreaterThanOrEqual(0);
    expect(pressure).toBeLessThanOrEqual(1);
  });
});

test('the most memory of a process, in /proc/self/status', () => {
  expect(processMemory(linux({}))).toEqual({ residentBytes: 100 * MIB, highWaterBytes: 200 * MIB });
});
