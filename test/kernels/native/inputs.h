// Seeded inputs, ordinary and not.
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "fenced.h"

namespace potluck {

// SplitMix64.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint32_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return uint32_t((z ^ (z >> 31)) >> 32);
  }
  int below(int n) { return int(next() % uint32_t(n)); }
  // In (-size, size).
  float around(float size) { return (float(next() >> 8) / float(1 << 23) - 1.0f) * size; }

 private:
  uint64_t state_;
};

// 0 to 8, around blocks, and primes.
inline const std::vector<int>& sizes() {
  static const std::vector<int> all = {0,  1,  2,  3,  4,  5,  6,  7,  8,   15,  16,  17, 31,
                                       32, 33, 47, 48, 49, 61, 97, 127, 128, 129, 257};
  return all;
}

// Magnitudes of inputs; 0: all zeros.
inline const std::vector<float>& magnitudes_of_inputs() {
  static const std::vector<float> all = {1.0f, 40.0f, 0.0f, 1e-30f, 2e-31f, 1e-36f, 1e-44f, 1e30f, 3e38f};
  return all;
}

enum class Oddities { none, some };

// In (-size, size); with oddities one in six is a zero, a subnormal, an end of the range, halfway between integers, or not finite.
inline void fill(Random& random, float* x, size_t n, float size, Oddities oddities) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const float odd[] = {0.0f,  -0.0f,     1e-45f,     -1e-40f, 3.4e38f, -3.4e38f, 1.0f,   0.5f,   -1.5f,
                       2.5f,  -87.0f,    -87.00001f, 88.0f,   88.1f,   -200.0f,  kInfinity, -kInfinity, std::nanf("")};
  for (size_t i = 0; i < n; i++) {
    x[i] = random.around(size);
    if (oddities == Oddities::some && random.below(6) == 0) x[i] = odd[random.below(int(sizeof odd / sizeof *odd))];
  }
}

// Multiples of a half whose step is 1 when `far` becomes the end of the range: half of them lie between two steps.
inline void fill_ties(Random& random, float* x, size_t n, float far) {
  for (size_t i = 0; i < n; i++) x[i] = float(random.below(int(std::fabs(far)) * 4 - 1)) * 0.5f - std::fabs(far) + 0.5f;
  if (n > 0) x[random.below(int(n))] = far;
}

inline void fill_bytes(Random& random, uint8_t* bytes, size_t n) {
  for (size_t i = 0; i < n; i++) bytes[i] = uint8_t(random.next());
}

// An IEEE half; with oddities one in six is a zero, a subnormal, the largest, or not finite.
inline uint16_t any_half(Random& random, Oddities oddities) {
  const uint16_t odd[] = {0x0000, 0x8000, 0x0001, 0x83ff, 0x7bff, 0xfbff, 0x7c00, 0xfc00, 0x7e00};
  if (oddities == Oddities::some && random.below(6) == 0) return odd[random.below(int(sizeof odd / sizeof *odd))];
  const int exponent = 8 + random.below(10);
  return uint16_t((random.next() & 0x83ff) | uint32_t(exponent) << 10);
}

}  // namespace potluck
