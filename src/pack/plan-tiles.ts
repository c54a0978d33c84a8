import { LRUCache } from 'lru-cache';

/** Plans whose tiles are remembered. */
const MOST_PLANS = 64;

/**
 * Which cached tiles may go when the disk's share is full: those of the plans used longest ago first, never those of the
 * plan in use. Tiles of no plan that is remembered (of an earlier run) go before all others.
 */
export class PlanTiles {
  readonly #plans = new LRUCache<string, ReadonlySet<string>>({ max: MOST_PLANS });

  /** A plan begins or is used again. `key` names it; `hashes` are the tiles that this device holds for it. */
  use(key: string, hashes: Iterable<string>): void {
    this.#plans.set(key, new Set(hashes));
  }

  /**
   * Tiles of `cached` to remove until at least `bytes` are free, or all that may go, in the order in which they go.
   * `keep`: the plan in use and the one that is prepared.
   */
  victims(
    cached: ReadonlyMap<string, number>,
    bytes: number,
    keep: ReadonlySet<string>,
  ): { readonly hashes: string[]; readonly bytes: number } {
    const hashes: string[] = [];
    let freed = 0;
    const give = (hash: string): void => {
      const size = cached.get(hash);
      if (freed >= bytes || size === undefined || keep.has(hash) || gone.has(hash)) return;
      gone.add(hash);
      hashes.push(hash);
      freed += size;
    };
    const gone = new Set<string>();
    const plans = [...this.#plans.rvalues()].filter(plan => plan !== undefined);
    for (const hash of cached.keys()) if (!plans.some(plan => plan.has(hash))) give(hash);
    for (const [i, plan] of plans.entries()) {
      // What a plan used later needs, too, goes with that one.
      const later = plans.slice(i + 1);
      for (const hash of plan) if (!later.some(other => other.has(hash))) give(hash);
    }
    return { hashes, bytes: freed };
  }
}
