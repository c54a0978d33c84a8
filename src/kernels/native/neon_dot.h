// Sums of a w4 group with the dot product instruction of NEON.
#pragma once
#include "neon_lanes.h"

namespace potluck {
namespace {

// w4_group of simd_matmul.h. 4 rows at a time, from -8 * sum(q), in two chains: products add exactly.
template <int T, class Use>
inline void w4_group_dot(const uint8_t* nibbles, const uint8_t* q, const uint8_t* bias, size_t stride, const Use& use) {
  int32x4_t sums[4][T];
  for (int r = 0; r < 4; r++) {
    const FourRows rows(nibbles, r);
    for (int t = 0; t < T; t++) {
      const int8_t* row = reinterpret_cast<const int8_t*>(q + size_t(t) * stride);
      const int8x16_t first = vld1q_s8(row), second = vld1q_s8(row + 16);
      int32x4_t even = broadcast4(bias + size_t(t) * stride), odd = vdupq_n_s32(0);
      even = vdotq_laneq_s32(even, rows.low[0], first, 0);
      odd = vdotq_laneq_s32(odd, rows.high[0], first, 1);
      even = vdotq_laneq_s32(even, rows.low[1], first, 2);
      odd = vdotq_laneq_s32(odd, rows.high[1], first, 3);
      even = vdotq_laneq_s32(even, rows.low[2], second, 0);
      odd = vdotq_laneq_s32(odd, rows.high[2], second, 1);
      even = vdotq_laneq_s32(even, rows.low[3], second, 2);
      odd = vdotq_laneq_s32(odd, rows.high[3], second, 3);
      sums[r][t] = vaddq_s32(even, odd);
      // What it is at this point: a compiler that begins more rows before these are done runs out of registers.
      __asm__ volatile("" : "+w"(sums[r][t]));
    }
  }
  for (int t = 0; t < T; t++) use(t, Lanes::I{sums[0][t], sums[1][t], sums[2][t], sums[3][t]});
}

}  // namespace
}  // namespace potluck
