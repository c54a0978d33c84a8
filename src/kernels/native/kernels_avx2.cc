// AVX2 with FMA and F16C: two registers are 16 float lanes. The products of one w4 group fit 16-bit sums.
#include "kernels.h"

#if defined(__x86_64__)
#include "avx2_lanes.h"
#include "simd_kernels.h"

namespace potluck {
namespace {

constexpr int kW4Tokens = 4;

// 8 rows at a time. A 16-bit lane takes 16 products of at most 15 * 127: 30480.
template <int T, class Use>
inline void w4_group(const uint8_t* nibbles, const uint8_t* q, const uint8_t* bias, size_t stride, const Use& use) {
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i sums[2][T];
  for (int half = 0; half < 2; half++) {
    const EightRows rows(nibbles, half);
    for (int t = 0; t < T; t++) {
      const uint8_t* row = q + size_t(t) * stride;
      __m256i sum = _mm256_setzero_si256();
      for (int c = 0; c < 4; c++) {
        const __m256i a = _mm256_maddubs_epi16(rows.low[c], broadcast4(row + size_t(c) * 8));
        const __m256i b = _mm256_maddubs_epi16(rows.high[c], broadcast4(row + size_t(c) * 8 + 4));
        sum = _mm256_add_epi16(sum, _mm256_add_epi16(a, b));
      }
      sums[half][t] = _mm256_add_epi32(_mm256_madd_epi16(sum, ones), broadcast4(bias + size_t(t) * stride));
    }
  }
  for (int t = 0; t < T; t++) use(t, I{sums[0][t], sums[1][t]});
}

}  // namespace
}  // namespace potluck

#include "simd_variant.h"

namespace potluck {
const Kernels kAvx2Kernels = {
    "avx2",
    POTLUCK_SIMD_KERNELS,
};

}  // namespace potluck
#endif
