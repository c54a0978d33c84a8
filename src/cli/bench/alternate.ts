/** Measurements that are taken in turn, so that a machine that others use too slows all of them alike. */

/** Values of one measurement, in any unit. */
export interface Samples {
  readonly median: number;
  /** A quarter of the values lies below, a quarter above. */
  readonly quartiles: readonly [number, number];
  readonly values: readonly number[];
}

/** What a bench has at the top of its JSON: `ratio` is `measured` over `limit`, of the round with the median ratio, in `unit`. */
export interface Measurement {
  readonly measured: number;
  readonly limit: number;
  readonly ratio: number;
  readonly unit: string;
  readonly spread: {
    readonly measured: readonly [number, number];
    readonly limit: readonly [number, number];
  };
}

/** Runs every program once a round, in turn; the first round warms up and does not count. */
export async function alternate<K extends string>(
  rounds: number,
  programs: Readonly<Record<K, () => Promise<number>>>,
  signal?: AbortSignal,
): Promise<Record<K, Samples>> {
  const names = Object.keys(programs) as K[];
  const values = new Map<K, number[]>(names.map(name => [name, []]));
  for (let round = 0; round <= rounds; round++) {
    for (const name of names) {
      signal?.throwIfAborted();
      const value = await programs[name]();
      if (round > 0) values.get(name)!.push(value);
    }
  }
  return Object.fromEntries(names.map(name => [name, samples(values.get(name)!)])) as Record<K, Samples>;
}

export function samples(values: readonly number[]): Samples {
  return {
    median: quantile(values, 0.5),
    quartiles: [quantile(values, 0.25), quantile(values, 0.75)],
    values,
  };
}

export const median = (values: readonly number[]): number => quantile(values, 0.5);

/** The value below which a part `q` of them lies, between neighbours where it falls there. */
function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const at = q * (sorted.length - 1);
  const below = sorted[Math.floor(at)]!;
  return below + (sorted[Math.ceil(at)]! - below) * (at - Math.floor(at));
}

/** Samples with every value multiplied. */
export const scaled = (s: Samples, by: number): Samples => samples(s.values.map(value => value * by));

/**
 * Both of as many rounds. A machine that others use is at times twice as fast as at others: a measurement and a limit of one round are
 * neighbours, medians of all rounds may be of different times.
 */
export function measurement(measured: Samples, limit: Samples, unit: string): Measurement {
  const rounds = measured.values.map((value, round) => ({ value, most: limit.values[round]! }));
  rounds.sort((a, b) => a.value / a.most - b.value / b.most);
  const { value, most } = rounds[(rounds.length - 1) >> 1]!;
  return {
    measured: value,
    limit: most,
    ratio: value / most,
    unit,
    spread: { measured: measured.quartiles, limit: limit.quartiles },
  };
}

/** What `a` takes more than `b`, round by round. */
export const difference = (a: Samples, b: Samples): Samples =>
  samples(a.values.map((value, i) => value - b.values[i]!));
