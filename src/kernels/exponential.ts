import { power } from './power.ts';

/**
 * exp(x) for many x from -MOST to 0, the same on every machine: only +, -, * and tables that `power` fills. x is
 * n / STEPS * ln 2 + r; 2^(n / STEPS) comes out of the tables and e^r of its series, within 1e-14 relatively. Several
 * times faster than Math.exp, which counts where a draw weighs each token of a vocabulary.
 */

/** The least exponent, negated, that may be asked for. */
export const MOST = 64;

const STEP_BITS = 6;
const STEPS = 1 << STEP_BITS;
const STEP = power(2, 1 / STEPS);
/** ln 2 / STEPS and its inverse. */
const LN2_STEP = 0.010830424696249145;
const STEPS_PER_UNIT = 92.33248261689366;

/** 2^(i / STEPS); [STEPS]. */
const FRACTIONS = Float64Array.from({ length: STEPS }, (_, i) => power(STEP, i));
/** 2^-i. */
const HALVINGS = Float64Array.from(
  { length: Math.ceil((MOST * STEPS_PER_UNIT) / STEPS) + 2 },
  (_, i) => 2 ** -i,
);

export function exponential(x: number): number {
  const n = (x * STEPS_PER_UNIT - 0.5) | 0; // to the nearest, as x is not above 0
  const r = x - n * LN2_STEP;
  const series = 1 + r * (1 + r * (1 / 2 + r * (1 / 6 + r * (1 / 24 + r * (1 / 120)))));
  return FRACTIONS[n & (STEPS - 1)]! * HALVINGS[-(n >> STEP_BITS)]! * series;
}
