// One setup of a clone at a time. Every process that wants to set up puts a file named by its process id into the
// lock folder, then looks whether a living process has one there too; if so it takes its own back and waits.
// Of two at once at least one sees the other, so never both go on. Files of dead processes count for nothing.

import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** Whether a process of that id runs (as any user). */
export function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
}

/** Ids of living processes, other than `self`, that have a file in the lock folder. Removes files of dead ones. */
export function otherHolders(folder, self = process.pid, alive = isAlive) {
  const holders = [];
  for (const name of readdirSync(folder)) {
    const pid = Number(name);
    if (pid === self) continue;
    if (Number.isInteger(pid) && pid > 0 && alive(pid)) holders.push(pid);
    else rmSync(join(folder, name), { force: true });
  }
  return holders;
}

/**
 * Runs `work` while no other process does so under the same folder.
 * @param {string} folder made where absent
 * @param {(pid: number) => void} onWait called once, when another process has the lock
 * @param {() => Promise<T>} work
 * @template T
 */
export async function withLock(folder, onWait, work, deadlineMilliseconds = 15 * 60_000) {
  mkdirSync(folder, { recursive: true });
  const mine = join(folder, String(process.pid));
  const deadline = Date.now() + deadlineMilliseconds;
  for (let said = false; ; ) {
    writeFileSync(mine, '');
    const [other] = otherHolders(folder);
    if (other === undefined) break;
    rmSync(mine, { force: true });
    if (!said) onWait(other);
    said = true;
    if (Date.now() > deadline) {
      throw new Error(`process ${other} has held ${folder} for too long; stop it or remove that folder`);
    }
    await sleep(50 + Math.random() * 200);
  }
  try {
    return await work();
  } finally {
    rmSync(mine, { force: true });
  }
}
