/**
 * How long a pass takes in the steady state, from rates alone: the analytic model of TPI-LLM (arXiv 2410.00531,
 * section 3.3), for a window whose ring holds more than a half layer. One thing is added to it: a disk is slower while the
 * processor reads weights, as both move bytes through the same memory, so there are two rates, both measured.
 *
 * While a half layer is computed and summed, so many bytes can be read:
 *   hidden(i) = compute(i) * busy rate + allreduce(i) * idle rate.
 * Loose condition, over a whole pass: sum(hidden) >= sum(streamed bytes).
 * Tight condition, in every half layer: hidden(i) >= streamed bytes(i + 1).
 * Where the tight one holds, compute never waits. Where only the loose one holds, it need not wait if the ring evens half
 * layers out. Where none holds, what could not be read meanwhile is read while the processor waits, at the idle rate.
 */
export interface HalfLayerLoad {
  readonly computeSeconds: number;
  readonly allreduceSeconds: number;
  readonly streamedBytes: number;
}

/** Bytes a second. */
export interface DiskRates {
  /** While the processor rests. */
  readonly idle: number;
  /** While all compute threads read memory. */
  readonly busy: number;
}

export interface SteadyState {
  readonly loose: boolean;
  readonly tight: boolean;
  /** The two floors of a pass: reading all that streams at the idle rate, and computing and summing. */
  readonly diskSeconds: number;
  readonly computeSeconds: number;
  /** At least the larger of them. */
  readonly passSeconds: number;
}

/** `halves`: all half layers of a pass and the head, in execution order; the last is followed by the first. */
export function steadyState(halves: readonly HalfLayerLoad[], rates: DiskRates): SteadyState {
  const hidden = halves.map(half => half.computeSeconds * rates.busy + half.allreduceSeconds * rates.idle);
  const sum = (numbers: readonly number[]): number => numbers.reduce((total, number) => total + number, 0);
  const computeSeconds = sum(halves.map(half => half.computeSeconds + half.allreduceSeconds));
  const streamed = sum(halves.map(half => half.streamedBytes));
  const left = Math.max(0, streamed - sum(hidden));
  return {
    loose: left === 0,
    tight: hidden.every((bytes, i) => bytes >= halves[(i + 1) % halves.length]!.streamedBytes),
    diskSeconds: streamed / rates.idle,
    computeSeconds,
    passSeconds: computeSeconds + left / rates.idle,
  };
}
