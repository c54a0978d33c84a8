/**
 * Powers of positive numbers that are the same on every machine: only +, -, * and /, which IEEE 754 defines to the bit.
 * Math.pow is not defined so. Within a few units of the last place of a double.
 */
export const power = (base: number, exponent: number): number => exponential(exponent * logarithm(base));

/** ln 2 in two parts: the product of the first and a small integer is exact. */
const LN2_HIGH = 0.6931471803691238;
const LN2_LOW = 1.9082149292705877e-10;
const TERMS = 20;

/** Of x > 0, finite: x = m * 2^e with m in [2/3, 4/3); ln m = 2 artanh((m - 1) / (m + 1)) by its series. */
function logarithm(x: number): number {
  let m = x;
  let e = 0;
  for (; m >= 4 / 3; m /= 2) e++;
  for (; m < 2 / 3; m *= 2) e--;
  const s = (m - 1) / (m + 1);
  const z = s * s;
  let sum = 0;
  for (let k = TERMS; k >= 0; k--) sum = sum * z + 1 / (2 * k + 1);
  return e * LN2_HIGH + (e * LN2_LOW + 2 * s * sum);
}

/** Of |x| < 700: x = n ln 2 + r; e^r by its series. */
function exponential(x: number): number {
  const n = Math.round(x / (LN2_HIGH + LN2_LOW));
  const r = x - n * LN2_HIGH - n * LN2_LOW;
  let sum = 1;
  for (let k = TERMS; k >= 1; k--) sum = 1 + (sum * r) / k;
  return sum * 2 ** n;
}
