/** [value, count, value, count, ...] of `values`; neighbours that are equal share a pair. */
export function encodeRuns(values: readonly number[]): number[] {
  const runs: number[] = [];
  for (const value of values) {
    if (runs.length > 0 && runs[runs.length - 2] === value) runs[runs.length - 1]! += 1;
    else runs.push(value, 1);
  }
  return runs;
}

/** Inverse of `encodeRuns`, or null where the counts are not whole numbers from 1 that add up to at most `most`. */
export function decodeRuns(runs: readonly number[], most: number): number[] | null {
  if (runs.length % 2 !== 0) return null;
  let total = 0;
  for (let i = 1; i < runs.length; i += 2) {
    const count = runs[i]!;
    if (!Number.isSafeInteger(count) || count < 1) return null;
    total += count;
    if (total > most) return null;
  }
  const values: number[] = [];
  for (let i = 0; i < runs.length; i += 2) {
    for (let n = runs[i + 1]!; n > 0; n--) values.push(runs[i]!);
  }
  return values;
}
