/**
 * Philox4x32-10, a counter-based generator (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3",
 * SC 2011). Word n needs no state but (key, n), so a request can move to another device between two tokens. Only 32-bit
 * integer arithmetic: the same on every platform.
 */

const MULTIPLIER_A = 0xd2511f53;
const MULTIPLIER_B = 0xcd9e8d57;
const WEYL_A = 0x9e3779b9;
const WEYL_B = 0xbb67ae85;
const ROUNDS = 10;
const TWO_32 = 0x1_0000_0000;

/** Upper 32 bits of the 64-bit product of two unsigned 32-bit integers, as a signed 32-bit integer. */
function multiplyHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const low = aLow * bLow;
  const middleA = aHigh * bLow + (low >>> 16);
  const middleB = aLow * bHigh + (middleA & 0xffff);
  return (aHigh * bHigh + (middleA >>> 16) + (middleB >>> 16)) | 0;
}

/** Replaces the counter, [4] uint32, by its random words under a 64-bit key. */
export function philox(words: Uint32Array, keyLow: number, keyHigh: number): void {
  let c0 = words[0]! | 0;
  let c1 = words[1]! | 0;
  let c2 = words[2]! | 0;
  let c3 = words[3]! | 0;
  let k0 = keyLow | 0;
  let k1 = keyHigh | 0;
  for (let round = 0; round < ROUNDS; round++) {
    const highA = multiplyHigh(MULTIPLIER_A, c0 >>> 0);
    const lowA = Math.imul(MULTIPLIER_A, c0);
    const highB = multiplyHigh(MULTIPLIER_B, c2 >>> 0);
    const lowB = Math.imul(MULTIPLIER_B, c2);
    c0 = highB ^ c1 ^ k0;
    c1 = lowB;
    c2 = highA ^ c3 ^ k1;
    c3 = lowA;
    k0 = (k0 + WEYL_A) | 0;
    k1 = (k1 + WEYL_B) | 0;
  }
  words[0] = c0;
  words[1] = c1;
  words[2] = c2;
  words[3] = c3;
}

const block = new Uint32Array(4);

/**
 * A number of [0, 1) with 53 random bits that depends on nothing but its arguments.
 * `seed` is a safe integer (negative ones too), `counter` a safe integer from 0.
 */
export function uniform(seed: number, counter: number): number {
  block[0] = counter >>> 0;
  block[1] = Math.floor(counter / TWO_32) >>> 0;
  block[2] = 0;
  block[3] = 0;
  philox(block, seed >>> 0, Math.floor(seed / TWO_32) >>> 0);
  return ((block[0]! >>> 5) * 0x4000000 + (block[1]! >>> 6)) / 0x20000000000000;
}
