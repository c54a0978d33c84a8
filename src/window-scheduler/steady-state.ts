/**
 * How long a pass takes in the steady state, from rates alone: the analytic model of TPI-LLM (arXiv 2410.00531,
 * section 3.3), for a window whose ring holds more than a half layer.
 *
 * Loose condition: over a whole pass, computing and summing take at least as long as reading what streams:
 *   sum(compute + allreduce) >= sum(streamed bytes) / disk rate.
 * Tight condition: the same in every half layer: while one half layer is computed and summed, the next one is read:
 *   compute(i) + allreduce(i) >= streamed bytes(i + 1) / disk rate.
 * Where the tight one holds, compute never waits. Where only the loose one holds, it need not wait if the ring evens half
 * layers out. Where none holds, the disk is the floor of a pass.
 */
export interface HalfLayerLoad {
  readonly computeSeconds: number;
  readonly allreduceSeconds: number;
  readonly streamedBytes: number;
}

export interface SteadyState {
  readonly loose: boolean;
  readonly tight: boolean;
  /** The two floors of a pass, and the larger. */
  readonly diskSeconds: number;
  readonly computeSeconds: number;
  readonly passSeconds: number;
}

/** `halves`: all half layers of a pass and the head, in execution order; the last is followed by the first. */
export function steadyState(halves: readonly HalfLayerLoad[], diskRate: number): SteadyState {
  const busy = halves.map(half => half.computeSeconds + half.allreduceSeconds);
  const reads = halves.map(half => half.streamedBytes / diskRate);
  const computeSeconds = busy.reduce((sum, seconds) => sum + seconds, 0);
  const diskSeconds = reads.reduce((sum, seconds) => sum + seconds, 0);
  const tight = busy.every((seconds, i) => seconds >= reads[(i + 1) % reads.length]!);
  return {
    loose: computeSeconds >= diskSeconds,
    tight,
    diskSeconds,
    computeSeconds,
    passSeconds: Math.max(computeSeconds, diskSeconds),
  };
}
