// AVX-512 with VNNI: one register is 16 float lanes, or 16 rows x 4 inputs of a w4 panel.
#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

namespace potluck {
namespace {

inline __m128i max_of(__m128i a, __m128i b) { return _mm_max_epi32(a, b); }
inline __m256i max_of(__m256i a, __m256i b) { return _mm256_max_epi32(a, b); }
inline __m128i sum_of(__m128i a, __m128i b) { return _mm_add_epi32(a, b); }
inline __m256i sum_of(__m256i a, __m256i b) { return _mm256_add_epi32(a, b); }

// Reduces four registers of 16 lanes together: in each step halves of two of them share a register.
template <class Join>
inline void reduce4(const __m512i* v, int32_t* of, const Join& join) {
  __m256i w[4];
  for (int j = 0; j < 4; j++) w[j] = join(_mm512_castsi512_si256(v[j]), _mm512_extracti64x4_epi64(v[j], 1));
  const __m256i a = join(_mm256_unpacklo_epi32(w[0], w[1]), _mm256_unpackhi_epi32(w[0], w[1]));
  const __m256i b = join(_mm256_unpacklo_epi32(w[2], w[3]), _mm256_unpackhi_epi32(w[2], w[3]));
  const __m256i c = join(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
  const __m128i all = join(_mm256_castsi256_si128(c), _mm256_extracti128_si256(c, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(of), all);
}

struct Lanes {
  using F = __m512;
  using I = __m512i;
  using M = __mmask16;
  static constexpr int kRegisters = 32, kSums = 16;

  static M first(int n) { return M((1u << n) - 1); }
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static F load_n(const float* p, int n) { return _mm512_maskz_loadu_ps(first(n), p); }
  static void store(float* p, F v) { _mm512_storeu_ps(p, v); }
  static void store_n(float* p, F v, int n) { _mm512_mask_storeu_ps(p, first(n), v); }
  static F set1(float x) { return _mm512_set1_ps(x); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F min(F a, F b) { return _mm512_min_ps(a, b); }
  static F rint(F a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static F load_half(const void* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p))); }
  static void store_half_n(uint16_t* p, F v, int n) {
    _mm256_mask_storeu_epi16(p, first(n), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  static F load_bf16(const void* p) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
  }
  static M lt(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
  static M le(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
  static M eq(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
  static M both(M a, M b) { return a & b; }
  static F select(M m, F yes, F no) { return _mm512_mask_blend_ps(m, no, yes); }
  static int count(M m) { return __builtin_popcount(m); }
  static bool all(M m) { return m == 0xffff; }
  static I bits(F a) { return _mm512_castps_si512(a); }
  static F floats(I a) { return _mm512_castsi512_ps(a); }
  static I to_int(F a) { return _mm512_cvtps_epi32(a); }
  static F to_float(I a) { return _mm512_cvtepi32_ps(a); }
  static I load_int(const int32_t* p) { return _mm512_loadu_si512(p); }
  static void store_int(int32_t* p, I v) { _mm512_storeu_si512(p, v); }
  static I load_int_n(const int32_t* p, int n) { return _mm512_maskz_loadu_epi32(first(n), p); }
  static void store_int_n(int32_t* p, I v, int n) { _mm512_mask_storeu_epi32(p, first(n), v); }
  static I add_int(I a, I b) { return _mm512_add_epi32(a, b); }
  static I sub_int(I a, I b) { return _mm512_sub_epi32(a, b); }
  static I and_int(I a, I b) { return _mm512_and_si512(a, b); }
  static I max_int(I a, I b) { return _mm512_max_epi32(a, b); }
  static I shift_left_4(I a) { return _mm512_slli_epi32(a, 4); }
  static F times_power(F x, F n) { return _mm512_scalef_ps(x, n); }
  static I set1_int(int32_t x) { return _mm512_set1_epi32(x); }
  static int32_t reduce_max_int(I a) { return _mm512_reduce_max_epi32(a); }
  static int32_t reduce_add_int(I a) { return _mm512_reduce_add_epi32(a); }
  // of[j]: of v[j], for four at once.
  static void reduce_max_int4(const I* v, int32_t* of) {
    reduce4(v, of, [](auto a, auto b) { return max_of(a, b); });
  }
  static void reduce_add_int4(const I* v, int32_t* of) {
    reduce4(v, of, [](auto a, auto b) { return sum_of(a, b); });
  }
  static float fold(F v) {
    const I lanes = bits(v);
    const __m256 eight = _mm256_add_ps(_mm256_castsi256_ps(_mm512_castsi512_si256(lanes)),
                                       _mm256_castsi256_ps(_mm512_extracti64x4_epi64(lanes, 1)));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
  template <int H>
  static F butterfly(F v) {
    constexpr M kUpper = H == 1 ? 0xaaaa : H == 2 ? 0xcccc : H == 4 ? 0xf0f0 : 0xff00;
    const F other = H == 1   ? _mm512_permute_ps(v, 0xb1)
                    : H == 2 ? _mm512_permute_ps(v, 0x4e)
                    : H == 4 ? _mm512_shuffle_f32x4(v, v, 0xb1)
                             : _mm512_shuffle_f32x4(v, v, 0x4e);
    return _mm512_mask_sub_ps(_mm512_add_ps(v, other), kUpper, other, v);
  }
  static void store_int8(int8_t* p, I v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(v)); }
};

}  // namespace
}  // namespace potluck

#include "simd_kernels.h"

namespace potluck {
namespace {

inline __m512i broadcast4(const uint8_t* p) {
  int32_t word;
  __builtin_memcpy(&word, p, 4);
  return _mm512_set1_epi32(word);
}

constexpr int kW4Tokens = 8, kStreams = 1;

// From -8 * sum(q), in two chains: products add exactly.
template <int T, class Use>
inline void w4_group(const uint8_t* nibbles, const uint8_t* q, const uint8_t* bias, size_t stride, const Use& use) {
  const __m512i low_nibbles = _mm512_set1_epi8(15);
  __m512i low[4], high[4];
  for (int c = 0; c < 4; c++) {
    const __m512i w = _mm512_loadu_si512(nibbles + size_t(c) * 64);
    low[c] = _mm512_and_si512(w, low_nibbles);
    high[c] = _mm512_and_si512(_mm512_srli_epi16(w, 4), low_nibbles);
  }
#pragma GCC unroll 8
  for (int t = 0; t < T; t++, q += stride, bias += stride) {
    __m512i even = broadcast4(bias), odd = _mm512_setzero_si512();
    for (int c = 0; c < 4; c++) {
      even = _mm512_dpbusd_epi32(even, low[c], broadcast4(q + size_t(c) * 8));
      odd = _mm512_dpbusd_epi32(odd, high[c], broadcast4(q + size_t(c) * 8 + 4));
    }
    use(t, _mm512_add_epi32(even, odd));
  }
}

}  // namespace
}  // namespace potluck

#include "simd_variant.h"

namespace potluck {
const Kernels kAvx512VnniKernels = {
    "avx512-vnni",
    POTLUCK_SIMD_KERNELS,
};

}  // namespace potluck
#endif
