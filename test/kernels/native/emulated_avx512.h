// AVX-512 and AVX-VNNI on a processor that has AVX2, FMA and F16C: what Intel's manual says of each intrinsic that
// kernels_avx512vnni.cc and kernels_avxvnni.cc use, in two halves of 256 bits. Compiled in front of these files (-include), whose
// intrinsics then are these: in their namespace they hide the compiler's. One that is not here does not compile.
#pragma once
#include <immintrin.h>
#include <stdint.h>

#define __AVXVNNI__ 1  // kernels_avxvnni.cc is empty without it

namespace potluck {

struct Halves512 {
  __m256 low, high;
};
struct Halves512i {
  __m256i low, high;
};
#define __m512 Halves512
#define __m512i Halves512i

// --- lanes ---

struct Ints16 {
  int32_t at[16];
};

inline Ints16 each_of(__m512i a) {
  Ints16 lanes;
  __builtin_memcpy(&lanes, &a, 64);
  return lanes;
}

// All ones where the mask has a bit, zeros elsewhere.
inline __m512i lanes_of(__mmask16 mask) {
  const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const __m256i low = _mm256_and_si256(_mm256_set1_epi32(mask), bits);
  const __m256i high = _mm256_and_si256(_mm256_set1_epi32(mask >> 8), bits);
  return {_mm256_cmpeq_epi32(low, bits), _mm256_cmpeq_epi32(high, bits)};
}

inline __m512i _mm512_castps_si512(__m512 a) { return {_mm256_castps_si256(a.low), _mm256_castps_si256(a.high)}; }
inline __m512 _mm512_castsi512_ps(__m512i a) { return {_mm256_castsi256_ps(a.low), _mm256_castsi256_ps(a.high)}; }
inline __m256i _mm512_castsi512_si256(__m512i a) { return a.low; }
inline __m512 _mm512_set1_ps(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline __m512i _mm512_set1_epi32(int x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
inline __m512i _mm512_set1_epi8(char x) { return {_mm256_set1_epi8(x), _mm256_set1_epi8(x)}; }
inline __m512i _mm512_setzero_si512() { return _mm512_set1_epi32(0); }

template <int Half>
inline __m256i extract_half(__m512i a) {
  return Half == 0 ? a.low : a.high;
}
#undef _mm512_extracti64x4_epi64
#define _mm512_extracti64x4_epi64(a, half) extract_half<half>(a)

template <int Order>
inline __m512 permute_in_fours(__m512 a) {
  return {_mm256_permute_ps(a.low, Order), _mm256_permute_ps(a.high, Order)};
}
#undef _mm512_permute_ps
#define _mm512_permute_ps(a, order) permute_in_fours<order>(a)

// Two fours of lanes of a, then two of b.
template <int Order>
inline __m512 shuffle_fours(__m512 a, __m512 b) {
  const auto four = [](__m512 v, int i) {
    const __m256 half = i < 2 ? v.low : v.high;
    return i % 2 == 0 ? _mm256_castps256_ps128(half) : _mm256_extractf128_ps(half, 1);
  };
  return {_mm256_set_m128(four(a, Order >> 2 & 3), four(a, Order & 3)),
          _mm256_set_m128(four(b, Order >> 6 & 3), four(b, Order >> 4 & 3))};
}
#undef _mm512_shuffle_f32x4
#define _mm512_shuffle_f32x4(a, b, order) shuffle_fours<order>(a, b)

inline __m512 _mm512_mask_blend_ps(__mmask16 mask, __m512 a, __m512 b) {
  const __m512 of_b = _mm512_castsi512_ps(lanes_of(mask));
  return {_mm256_blendv_ps(a.low, b.low, of_b.low), _mm256_blendv_ps(a.high, b.high, of_b.high)};
}

// --- memory: nothing is touched beyond the mask ---

inline __m512 _mm512_loadu_ps(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void _mm512_storeu_ps(float* p, __m512 a) {
  _mm256_storeu_ps(p, a.low);
  _mm256_storeu_ps(p + 8, a.high);
}
inline __m512i _mm512_loadu_si512(const void* p) {
  return _mm512_castps_si512(_mm512_loadu_ps(static_cast<const float*>(p)));
}
inline void _mm512_storeu_si512(void* p, __m512i a) { _mm512_storeu_ps(static_cast<float*>(p), _mm512_castsi512_ps(a)); }

inline __m512i _mm512_maskz_loadu_epi32(__mmask16 mask, const int* p) {
  const __m512i lanes = lanes_of(mask);
  return {_mm256_maskload_epi32(p, lanes.low), _mm256_maskload_epi32(p + 8, lanes.high)};
}
inline __m512 _mm512_maskz_loadu_ps(__mmask16 mask, const float* p) {
  return _mm512_castsi512_ps(_mm512_maskz_loadu_epi32(mask, reinterpret_cast<const int*>(p)));
}
inline void _mm512_mask_storeu_epi32(int* p, __mmask16 mask, __m512i a) {
  const __m512i lanes = lanes_of(mask);
  _mm256_maskstore_epi32(p, lanes.low, a.low);
  _mm256_maskstore_epi32(p + 8, lanes.high, a.high);
}
inline void _mm512_mask_storeu_ps(float* p, __mmask16 mask, __m512 a) {
  _mm512_mask_storeu_epi32(reinterpret_cast<int*>(p), mask, _mm512_castps_si512(a));
}
inline void _mm256_mask_storeu_epi16(uint16_t* p, __mmask16 mask, __m256i a) {
  uint16_t lanes[16];
  __builtin_memcpy(lanes, &a, 32);
  for (int i = 0; i < 16; i++)
    if (mask >> i & 1) p[i] = lanes[i];
}

// --- floats ---

inline __m512 _mm512_add_ps(__m512 a, __m512 b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
inline __m512 _mm512_sub_ps(__m512 a, __m512 b) { return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
inline __m512 _mm512_mul_ps(__m512 a, __m512 b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
inline __m512 _mm512_div_ps(__m512 a, __m512 b) { return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)}; }
inline __m512 _mm512_max_ps(__m512 a, __m512 b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
inline __m512 _mm512_min_ps(__m512 a, __m512 b) { return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)}; }
inline __m512 _mm512_fmadd_ps(__m512 a, __m512 b, __m512 c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
inline __m512 _mm512_mask_sub_ps(__m512 other, __mmask16 mask, __m512 a, __m512 b) {
  return _mm512_mask_blend_ps(mask, other, _mm512_sub_ps(a, b));
}

template <int Rounding>
inline __m512 round_to_whole(__m512 a) {
  static_assert(Rounding >> 4 == 0, "no bits behind the point");
  return {_mm256_round_ps(a.low, Rounding), _mm256_round_ps(a.high, Rounding)};
}
#undef _mm512_roundscale_ps
#define _mm512_roundscale_ps(a, rounding) round_to_whole<rounding>(a)

template <int Predicate>
inline __mmask16 compare(__m512 a, __m512 b) {
  const int low = _mm256_movemask_ps(_mm256_cmp_ps(a.low, b.low, Predicate));
  const int high = _mm256_movemask_ps(_mm256_cmp_ps(a.high, b.high, Predicate));
  return __mmask16(low | high << 8);
}
#undef _mm512_cmp_ps_mask
#define _mm512_cmp_ps_mask(a, b, predicate) compare<predicate>(a, b)

// x * 2^floor(n), rounded once: as a double it is exact, and with 2^400 or 2^-400 the float is infinite or zero anyway. An
// infinite n is a factor of infinity or zero, and the result where x is a NaN.
inline float scaled(float x, float n) {
  if (__builtin_isnan(n)) return x + n;
  if (__builtin_isinf(n)) {
    const float factor = n < 0 ? 0.0f : __builtin_inff();
    return __builtin_isnan(x) ? factor : x * factor;
  }
  const float power = __builtin_floorf(n < -400 ? -400 : n > 400 ? 400 : n);
  return float(__builtin_ldexp(double(x), int(power)));
}
inline __m512 _mm512_scalef_ps(__m512 a, __m512 b) {
  float x[16], n[16];
  _mm512_storeu_ps(x, a);
  _mm512_storeu_ps(n, b);
  for (int i = 0; i < 16; i++) x[i] = scaled(x[i], n[i]);
  return _mm512_loadu_ps(x);
}

// --- between formats ---

inline __m512i _mm512_cvtps_epi32(__m512 a) { return {_mm256_cvtps_epi32(a.low), _mm256_cvtps_epi32(a.high)}; }
inline __m512 _mm512_cvtepi32_ps(__m512i a) { return {_mm256_cvtepi32_ps(a.low), _mm256_cvtepi32_ps(a.high)}; }
inline __m512 _mm512_cvtph_ps(__m256i a) {
  return {_mm256_cvtph_ps(_mm256_castsi256_si128(a)), _mm256_cvtph_ps(_mm256_extracti128_si256(a, 1))};
}
inline __m512i _mm512_cvtepu16_epi32(__m256i a) {
  return {_mm256_cvtepu16_epi32(_mm256_castsi256_si128(a)), _mm256_cvtepu16_epi32(_mm256_extracti128_si256(a, 1))};
}

template <int Rounding>
inline __m256i to_halves(__m512 a) {
  return _mm256_set_m128i(_mm256_cvtps_ph(a.high, Rounding), _mm256_cvtps_ph(a.low, Rounding));
}
#undef _mm512_cvtps_ph
#define _mm512_cvtps_ph(a, rounding) to_halves<rounding>(a)

// The lowest byte of each lane.
inline __m128i _mm512_cvtepi32_epi8(__m512i a) {
  const Ints16 lanes = each_of(a);
  uint8_t bytes[16];
  for (int i = 0; i < 16; i++) bytes[i] = uint8_t(lanes.at[i]);
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
}

// --- whole numbers ---

inline __m512i _mm512_add_epi32(__m512i a, __m512i b) {
  return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)};
}
inline __m512i _mm512_sub_epi32(__m512i a, __m512i b) {
  return {_mm256_sub_epi32(a.low, b.low), _mm256_sub_epi32(a.high, b.high)};
}
inline __m512i _mm512_and_si512(__m512i a, __m512i b) {
  return {_mm256_and_si256(a.low, b.low), _mm256_and_si256(a.high, b.high)};
}
inline __m512i _mm512_max_epi32(__m512i a, __m512i b) {
  return {_mm256_max_epi32(a.low, b.low), _mm256_max_epi32(a.high, b.high)};
}
#undef _mm512_slli_epi32
inline __m512i _mm512_slli_epi32(__m512i a, int by) { return {_mm256_slli_epi32(a.low, by), _mm256_slli_epi32(a.high, by)}; }
#undef _mm512_srli_epi16
inline __m512i _mm512_srli_epi16(__m512i a, int by) { return {_mm256_srli_epi16(a.low, by), _mm256_srli_epi16(a.high, by)}; }

inline int _mm512_reduce_max_epi32(__m512i a) {
  const Ints16 lanes = each_of(a);
  int most = lanes.at[0];
  for (const int lane : lanes.at) most = lane > most ? lane : most;
  return most;
}
inline int _mm512_reduce_add_epi32(__m512i a) {
  uint32_t sum = 0;
  const Ints16 lanes = each_of(a);
  for (const int lane : lanes.at) sum += uint32_t(lane);
  return int(sum);
}

// Adds four products of bytes, those of a without sign, to each lane, which wraps: those of bytes 0 and 2, and of 1 and 3, as
// pairs of 16 bits.
inline __m256i _mm256_dpbusd_avx_epi32(__m256i sum, __m256i a, __m256i b) {
  const __m256i even_a = _mm256_and_si256(a, _mm256_set1_epi16(255)), odd_a = _mm256_srli_epi16(a, 8);
  const __m256i even_b = _mm256_srai_epi16(_mm256_slli_epi16(b, 8), 8), odd_b = _mm256_srai_epi16(b, 8);
  const __m256i even = _mm256_madd_epi16(even_a, even_b), odd = _mm256_madd_epi16(odd_a, odd_b);
  return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
}
inline __m512i _mm512_dpbusd_epi32(__m512i sum, __m512i a, __m512i b) {
  return {_mm256_dpbusd_avx_epi32(sum.low, a.low, b.low), _mm256_dpbusd_avx_epi32(sum.high, a.high, b.high)};
}

}  // namespace potluck
