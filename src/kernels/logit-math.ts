/** What a draw needs of a whole row of logits, [vocabulary] float32: too much for a script where a vocabulary is large. */
export interface LogitMath {
  /** Place of the greatest, the lowest of equal ones; of a NaN where there is one above it; -1 where all are -Infinity. */
  greatest(logits: Float32Array): number;
  /** weights[i] = exp((logits[i] - max) * inverse), 0 where that is under e^-87; max: of the logits, inverse: above 0, finite. */
  weigh(logits: Float32Array, max: number, inverse: number, weights: Float32Array): void;
}

/** For a device without the native addon, which is not exact anyway. */
export const SCRIPT_LOGIT_MATH: LogitMath = {
  greatest(logits) {
    let best = Number.NEGATIVE_INFINITY;
    let at = -1;
    for (let id = 0; id < logits.length; id++) {
      const logit = logits[id]!;
      if (logit <= best) continue;
      if (Number.isNaN(logit)) return id;
      best = logit;
      at = id;
    }
    return at;
  },
  weigh(logits, max, inverse, weights) {
    for (let i = 0; i < logits.length; i++) weights[i] = Math.exp((logits[i]! - max) * inverse);
  },
};
