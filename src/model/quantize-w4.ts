import { floatToHalf, halfToFloat } from '../pack/number-formats.ts';
import { GROUP } from '../pack/tile-shape.ts';

/** Largest finite IEEE half. */
const MOST_SCALE = 65504;
/**
 * Where the weight of largest magnitude may come to lie, in steps of the scale. Below 0 it takes the side that reaches
 * -8; past the ends it is cut off, which at times costs less than coarser steps for all others.
 */
const TARGETS = [-8, -7.5, -8.5, -7, -9, 7, 7.5, 6.5, 8];

/**
 * Quantizes `GROUP` weights from `values[at]` on to nibbles 0..15 (zero point 8) and one scale, the one of a handful of
 * candidates with the least squared error. Writes the nibbles to `nibbles` and returns the bits of the scale, an IEEE
 * half. A group of zeros has scale 0 and nibbles 8.
 */
export function quantizeGroup(values: Float32Array, at: number, nibbles: Uint8Array): number {
  let extreme = 0;
  for (let k = 0; k < GROUP; k++)
    if (Math.abs(values[at + k]!) > Math.abs(extreme)) extreme = values[at + k]!;
  let best = 0;
  let least = Number.POSITIVE_INFINITY;
  if (extreme !== 0) {
    for (const target of TARGETS) {
      const half = floatToHalf(refine(values, at, extreme / target));
      const error = squaredError(values, at, halfToFloat(half));
      if (error < least) {
        least = error;
        best = half;
      }
    }
  }
  const scale = halfToFloat(best);
  const inverse = scale === 0 ? 0 : 1 / scale;
  for (let k = 0; k < GROUP; k++) nibbles[k] = step(values[at + k]! * inverse) + 8;
  return scale === 0 ? 0 : best;
}

/** The whole number of -8..7 next to x. */
function step(x: number): number {
  return Math.min(7, Math.max(-8, Math.floor(x + 0.5)));
}

/** The scale with the least squared error for the steps that `scale` gives, within the range of a half. */
function refine(values: Float32Array, at: number, scale: number): number {
  const inverse = 1 / scale;
  let product = 0;
  let square = 0;
  for (let k = 0; k < GROUP; k++) {
    const value = values[at + k]!;
    const n = step(value * inverse);
    product += value * n;
    square += n * n;
  }
  const refined = square > 0 ? product / square : scale;
  return Math.min(MOST_SCALE, Math.max(-MOST_SCALE, refined));
}

function squaredError(values: Float32Array, at: number, scale: number): number {
  const inverse = scale === 0 ? 0 : 1 / scale;
  let sum = 0;
  for (let k = 0; k < GROUP; k++) {
    const value = values[at + k]!;
    const rest = value - step(value * inverse) * scale;
    sum += rest * rest;
  }
  return sum;
}
