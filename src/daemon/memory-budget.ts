import type { SystemMemory } from './process-memory.ts';

/** The budget of `--memory auto`: what the system can spare, followed as that changes. */

/** Part of what is available that is left to other programs at the start. */
const HEADROOM = 0.1;
/** Part of the first budget that stays available to other programs: below it memory is given back. */
const LEAST_AVAILABLE = 0.05;
/** How fast a budget that was cut grows again, as a part of it. */
const GROWTH = 0.05;
/** More of the last ten seconds than this in which programs waited for memory: give back. */
const MOST_PRESSURE = 0.1;
/** What is given back then, as a part of the budget. */
const GIVE_BACK = 0.1;

/** Where a daemon starts: `residentBytes` are its own already. */
export const firstBudget = ({ availableBytes }: SystemMemory, residentBytes: number): number =>
  Math.floor(residentBytes + availableBytes * (1 - HEADROOM));

/**
 * The next budget: never over `first`; less where the system is short, and more again, slowly, when it is not.
 * `residentBytes`: what this process takes now.
 */
export function nextBudget(
  budget: number,
  first: number,
  { availableBytes, pressure }: SystemMemory,
  residentBytes: number,
): number {
  const used = Math.min(budget, residentBytes);
  if (pressure > MOST_PRESSURE) return Math.floor(used * (1 - GIVE_BACK));
  const spare = availableBytes - first * LEAST_AVAILABLE;
  if (spare < 0) return Math.max(0, Math.floor(Math.min(budget, residentBytes + spare)));
  const room = Math.min(residentBytes + spare, budget * (1 + GROWTH));
  return Math.floor(Math.min(first, Math.max(budget, room)));
}
