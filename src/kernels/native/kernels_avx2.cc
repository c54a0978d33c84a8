// AVX2 with FMA and F16C: two registers are 16 float lanes. The products of one w4 group fit 16-bit sums.
#include "kernels.h"

#if defined(__x86_64__)
#include "avx2_lanes.h"
#include "simd_kernels.h"

namespace potluck {
namespace {

constexpr int kW4Tokens = 4, kStreams = 2;

// A pair of 16-bit lanes takes 32 products of a row, 16 each. The first begins with -8 * sum(q): at each step it is from
// -8 * 127 * 32 = -32512 to 32512, the second within 15 * 127 * 16 = 30480.
template <int T, class Use>
inline void w4_group(const uint8_t* nibbles, const uint8_t* q, const uint8_t* bias, size_t stride, const Use& use) {
  const __m256i ones = _mm256_set1_epi16(1), first = _mm256_set1_epi32(0xffff);
  __m256i sums[2][T];
#pragma GCC unroll 4
  for (int t = 0; t < T; t++) sums[0][t] = sums[1][t] = _mm256_and_si256(broadcast4(bias + size_t(t) * stride), first);
  add_products<T>(nibbles, q, stride, sums, [](__m256i sum, __m256i w, __m256i inputs) __attribute__((always_inline)) {
    return _mm256_add_epi16(sum, _mm256_maddubs_epi16(w, inputs));
  });
#pragma GCC unroll 4
  for (int t = 0; t < T; t++) use(t, I{_mm256_madd_epi16(sums[0][t], ones), _mm256_madd_epi16(sums[1][t], ones)});
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
