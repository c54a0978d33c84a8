import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/**
 * Builds the library that makes a disk fail (failing-disk.cc). Null, with the reason said, where this system cannot: faults of the
 * system's own calls are then not tested.
 */
export function buildFailingDisk(): { readonly library: string; remove(): void } | null {
  const reason = process.platform === 'linux' ? null : 'this system preloads no libraries';
  const compilers = process.env.CXX ? [process.env.CXX] : ['g++', 'c++', 'clang++'];
  const folder = mkdtempSync(join(tmpdir(), 'potluck-failing-disk-'));
  const library = join(folder, 'failing-disk.so');
  const source = join(import.meta.dirname, 'failing-disk.cc');
  const remove = () => rmSync(folder, { recursive: true, force: true });
  const errors: string[] = reason === null ? [] : [reason];
  for (const compiler of reason === null ? compilers : []) {
    try {
      execFileSync(compiler, ['-std=c++17', '-O1', '-shared', '-fPIC', '-o', library, source], {
        stdio: ['ignore', 'ignore', 'pipe'],
      });
      return { library, remove };
    } catch (error) {
      errors.push(`${compiler}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  remove();
  process.stderr.write(`Failing disks are not tested: ${errors.join('; ')}\n`);
  return null;
}

/** What the disk does with the files of a folder. */
export type DiskFault =
  /** The first `count` reads (0: all) that touch these bytes fail. */
  | { readonly eio: { readonly count: number; readonly from: number; readonly to: number } }
  /** Reads take so many times as long. */
  | { readonly slow: number }
  /** Nothing can be written. */
  | 'full';

const line = (fault: DiskFault): string => {
  if (fault === 'full') return 'full';
  if ('slow' in fault) return `slow ${fault.slow}`;
  const { count, from, to } = fault.eio;
  return `eio ${count} ${from} ${to}`;
};

/** Faults of the files in `folder`, for processes that have the library preloaded. */
export async function breakDisk(folder: string, fault: DiskFault): Promise<void> {
  await rm(join(folder, 'faults'), { force: true });
  await writeFile(join(folder, 'fault'), line(fault));
}

/** From now on the disk works. Resolves to the number of faults there were. */
export async function mendDisk(folder: string): Promise<number> {
  await rm(join(folder, 'fault'));
  return (await stat(join(folder, 'faults')).catch(() => ({ size: 0 }))).size;
}
