// IEEE half and bf16 in portable code, round to nearest even.
#pragma once
#include <stdint.h>
#include <string.h>

namespace potluck {
namespace {

inline float bits_float(uint32_t bits) {
  float f;
  memcpy(&f, &bits, 4);
  return f;
}

inline uint32_t float_bits(float f) {
  uint32_t bits;
  memcpy(&bits, &f, 4);
  return bits;
}

inline float from_bf16(uint16_t b) { return bits_float(uint32_t(b) << 16); }

inline float from_half(uint16_t h) {
  const uint32_t sign = uint32_t(h & 0x8000) << 16;
  const uint32_t exponent = (h >> 10) & 31, fraction = h & 0x3ff;
  if (exponent == 31) return bits_float(sign | 0x7f800000 | fraction << 13 | (fraction ? 0x400000 : 0));
  if (exponent != 0) return bits_float(sign | (exponent + 112) << 23 | fraction << 13);
  const float magnitude = float(fraction) * 5.9604644775390625e-8f;  // 2^-24, exact
  return sign ? -magnitude : magnitude;
}

inline uint16_t to_half_bits(float f) {
  const uint32_t bits = float_bits(f);
  const uint16_t sign = uint16_t((bits >> 16) & 0x8000);
  const uint32_t a = bits & 0x7fffffff;
  if (a > 0x7f800000) return uint16_t(sign | 0x7e00 | ((a >> 13) & 0x1ff));
  if (a >= 0x477ff000) return uint16_t(sign | 0x7c00);  // 65520 and more round to infinity
  if (a < 0x38800000) {                                 // subnormal half: let the float adder round, at 2^-24
    const float sum = bits_float(a) + 0.5f;
    return uint16_t(sign | (float_bits(sum) - 0x3f000000));
  }
  const uint32_t odd = (a >> 13) & 1;
  return uint16_t(sign | ((a - 0x38000000 + 0xfff + odd) >> 13));
}

}  // namespace
}  // namespace potluck
