// AVX-VNNI: AVX2 lanes, and dot products of 32 bits. Compiled with AVX-512 VNNI and VL instead, it is the same instructions in
// their EVEX form.
#include "kernels.h"

#if defined(__x86_64__)
#if defined(__AVXVNNI__) || (defined(__AVX512VNNI__) && defined(__AVX512VL__))
#include "avx2_lanes.h"
#include "simd_kernels.h"

namespace potluck {
namespace {

constexpr int kW4Tokens = 4, kStreams = 2;

// From -8 * sum(q).
template <int T, class Use>
inline void w4_group(const uint8_t* nibbles, const uint8_t* q, const uint8_t* bias, size_t stride, const Use& use) {
  __m256i sums[2][T];
#pragma GCC unroll 4
  for (int t = 0; t < T; t++) sums[0][t] = sums[1][t] = broadcast4(bias + size_t(t) * stride);
  add_products<T>(nibbles, q, stride, sums, [](__m256i sum, __m256i w, __m256i inputs) __attribute__((always_inline)) {
#if defined(__AVXVNNI__)
    return _mm256_dpbusd_avx_epi32(sum, w, inputs);
#else
    return _mm256_dpbusd_epi32(sum, w, inputs);
#endif
  });
#pragma GCC unroll 4
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
