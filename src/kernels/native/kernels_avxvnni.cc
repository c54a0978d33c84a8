// AVX-VNNI: AVX2 lanes, and dot products of 32 bits. Compiled with AVX-512 VNNI and VL instead, it is the same instructions in
// their EVEX form.
#include "kernels.h"

#if defined(__x86_64__)
#if defined(__AVXVNNI__) || (defined(__AVX512VNNI__) && defined(__AVX512VL__))
#include "avx2_lanes.h"
#include "simd_kernels.h"

namespace potluck {
namespace {

constexpr int kW4Tokens = 4;

inline __m256i dot(__m256i sum, __m256i w, __m256i q) {
#if defined(__AVXVNNI__)
  return _mm256_dpbusd_avx_epi32(sum, w, q);
#else
  return _mm256_dpbusd_epi32(sum, w, q);
#endif
}

// 8 rows at a time, from -8 * sum(q), in two chains: products add exactly.
template <int T, class Use>
inline void w4_group(const uint8_t* nibbles, const uint8_t* q, const uint8_t* bias, size_t stride, const Use& use) {
  __m256i sums[2][T];
  for (int half = 0; half < 2; half++) {
    const EightRows rows(nibbles, half);
    for (int t = 0; t < T; t++) {
      const uint8_t* row = q + size_t(t) * stride;
      __m256i even = broadcast4(bias + size_t(t) * stride), odd = _mm256_setzero_si256();
      for (int c = 0; c < 4; c++) {
        even = dot(even, rows.low[c], broadcast4(row + size_t(c) * 8));
        odd = dot(odd, rows.high[c], broadcast4(row + size_t(c) * 8 + 4));
      }
      sums[half][t] = _mm256_add_epi32(even, odd);
    }
  }
  for (int t = 0; t < T; t++) use(t, I{sums[0][t], sums[1][t]});
}

}  // namespace
}  // namespace potluck

#include "simd_variant.h"

namespace potluck {
const Kernels kAvxVnniKernels = {
    "avx-vnni",
    POTLUCK_SIMD_KERNELS,
};

}  // namespace potluck
#else
namespace potluck {
const Kernels kAvxVnniKernels = {};  // the compiler does not know it
}
#endif
#endif
