// NEON as every 64-bit Arm processor has it: four registers are 16 float lanes. The products of one w4 group fit 16-bit sums.
#include "kernels.h"

#if defined(__aarch64__)
#include "neon_lanes.h"
#include "simd_kernels.h"

namespace potluck {
namespace {

constexpr int kW4Tokens = 4, kStreams = 1;

// 4 rows at a time. A 16-bit lane takes 16 products of at most 15 * 127: 30480.
template <int T, class Use>
inline void w4_group(const uint8_t* nibbles, const uint8_t* q, const uint8_t* bias, size_t stride, const Use& use) {
  int32x4_t sums[4][T];
  for (int r = 0; r < 4; r++) {
    const FourRows rows(nibbles, r);
    for (int t = 0; t < T; t++) {
      const uint8_t* row = q + size_t(t) * stride;
      int16x8_t upper = vdupq_n_s16(0), lower = upper;  // two rows each, a lane for each of 4 inputs
      for (int c = 0; c < 4; c++) {
        const int8x16_t a = vreinterpretq_s8_s32(broadcast4(row + size_t(c) * 8));
        const int8x16_t b = vreinterpretq_s8_s32(broadcast4(row + size_t(c) * 8 + 4));
        upper = vmlal_s8(upper, vget_low_s8(rows.low[c]), vget_low_s8(a));
        lower = vmlal_high_s8(lower, rows.low[c], a);
        upper = vmlal_s8(upper, vget_low_s8(rows.high[c]), vget_low_s8(b));
        lower = vmlal_high_s8(lower, rows.high[c], b);
      }
      sums[r][t] = vpadalq_s16(broadcast4(bias + size_t(t) * stride), vpaddq_s16(upper, lower));
      // What it is at this point: a compiler that begins more rows before these are done runs out of registers.
      __asm__ volatile("" : "+w"(sums[r][t]));
    }
  }
  for (int t = 0; t < T; t++) use(t, I{sums[0][t], sums[1][t], sums[2][t], sums[3][t]});
}

}  // namespace
}  // namespace potluck

#include "simd_variant.h"

namespace potluck {
const Kernels kNeonKernels = {
    "neon",
    POTLUCK_SIMD_KERNELS,
};

}  // namespace potluck
#endif
