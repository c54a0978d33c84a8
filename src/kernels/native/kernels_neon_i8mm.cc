// NEON with matrix products of int8 (Armv8.6, and some before): one instruction is 2 rows x 8 inputs x 2 tokens. A token alone
// takes dot products.
#include "kernels.h"

#if defined(__aarch64__)
#include "neon_dot.h"
#include "simd_kernels.h"

namespace potluck {
namespace {

constexpr int kW4Tokens = 4, kStreams = 1;

// The rows of each token pair lie side by side in 8 inputs; an odd last token is its own pair.
template <int T, class Use>
inline void w4_group(const uint8_t* nibbles, const uint8_t* q, const uint8_t* bias, size_t stride, const Use& use) {
  if (T == 1) return w4_group_dot<T>(nibbles, q, bias, stride, use);
  constexpr int kPairs = (T + 1) / 2;
  int32x4_t sums[4][2 * kPairs];
  for (int r = 0; r < 4; r++) {
    const FourRows rows(nibbles, r);
    int8x16_t upper[4], lower[4];  // two rows of 8 inputs each
    for (int c = 0; c < 4; c++) {
      const int32x4_t low = vreinterpretq_s32_s8(rows.low[c]), high = vreinterpretq_s32_s8(rows.high[c]);
      upper[c] = vreinterpretq_s8_s32(vzip1q_s32(low, high));
      lower[c] = vreinterpretq_s8_s32(vzip2q_s32(low, high));
    }
    for (int p = 0; p < kPairs; p++) {
      const size_t one = size_t(2 * p) * stride, other = size_t(least(2 * p + 1, T - 1)) * stride;
      int32x4_t a = vdupq_n_s32(0), b = a;
      for (int c = 0; c < 4; c++) {
        const uint8x16_t pair = vcombine_u8(vld1_u8(q + one + size_t(c) * 8), vld1_u8(q + other + size_t(c) * 8));
        a = vmmlaq_s32(a, upper[c], vreinterpretq_s8_u8(pair));
        b = vmmlaq_s32(b, lower[c], vreinterpretq_s8_u8(pair));
      }
      sums[r][2 * p] = vaddq_s32(vuzp1q_s32(a, b), broadcast4(bias + one));
      sums[r][2 * p + 1] = vaddq_s32(vuzp2q_s32(a, b), broadcast4(bias + other));
      // What it is at this point: a compiler that begins more rows before these are done runs out of registers.
      __asm__ volatile("" : "+w"(sums[r][2 * p]), "+w"(sums[r][2 * p + 1]));
    }
  }
  for (int t = 0; t < T; t++) use(t, I{sums[0][t], sums[1][t], sums[2][t], sums[3][t]});
}

}  // namespace
}  // namespace potluck

#include "simd_variant.h"

namespace potluck {
const Kernels kNeonI8mmKernels = {
    "neon-i8mm",
    POTLUCK_SIMD_KERNELS,
};

}  // namespace potluck
#endif
