/**
 * IEEE half and bfloat16, as bits. Rounding is to nearest, ties to even. Numbers are stored little-endian, which every
 * processor that Potluck runs on has.
 */

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

/** bfloat16 bits of a float32. */
export function floatToBf16(value: number): number {
  float[0] = value;
  const b = bits[0]!;
  if ((b & 0x7fffffff) > 0x7f800000) return (b >>> 16) | 0x40; // not a number: keep it one
  return ((b + 0x7fff + ((b >>> 16) & 1)) >>> 16) & 0xffff;
}

/** The float32 of bfloat16 bits. */
export function bf16ToFloat(half: number): number {
  bits[0] = half << 16;
  return float[0]!;
}

/** IEEE half bits of a float32. Over 65519 it becomes infinity. */
export function floatToHalf(value: number): number {
  float[0] = value;
  const b = bits[0]!;
  const sign = (b >>> 16) & 0x8000;
  const magnitude = b & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x47800000) return sign | 0x7c00;
  if (magnitude < 0x38800000) {
    // Subnormal: adding 0.5 puts the last bit of a half at the last bit of the float32.
    float[0] = Math.abs(value) + 0.5;
    return sign | (bits[0]! - 0x3f000000);
  }
  return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
}

/** The float32 of IEEE half bits. */
export function halfToFloat(half: number): number {
  const sign = (half & 0x8000) << 16;
  const exponent = (half >>> 10) & 31;
  const fraction = half & 0x3ff;
  if (exponent === 0) return (sign ? -1 : 1) * fraction * 2 ** -24;
  bits[0] =
    exponent === 31
      ? sign | 0x7f800000 | (fraction << 13)
      : sign | (((exponent + 112) << 23) + (fraction << 13));
  return float[0]!;
}
