// The lanes of simd_kernels.h with AVX2, FMA and F16C: two registers are 16 floats. For every instruction set of 256 bits.
#pragma once
#include <immintrin.h>

#include "kernels.h"

namespace potluck {
namespace {

struct Lanes {
  struct F {
    __m256 a, b;
  };
  struct I {
    __m256i a, b;
  };
  using M = F;  // lanes of all ones or all zeros
  static constexpr int kRegisters = 8, kSums = 2;

  static __m256i mask(int n, int from) {
    const __m256i lanes = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(from));
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), lanes);
  }
  static M first(int n) { return {_mm256_castsi256_ps(mask(n, 0)), _mm256_castsi256_ps(mask(n, 8))}; }
  static F load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static F load_n(const float* p, int n) {
    if (n == 16) return load(p);
    return {_mm256_maskload_ps(p, mask(n, 0)), _mm256_maskload_ps(p + 8, mask(n, 8))};
  }
  static void store(float* p, F v) {
    _mm256_storeu_ps(p, v.a);
    _mm256_storeu_ps(p + 8, v.b);
  }
  static void store_n(float* p, F v, int n) {
    if (n == 16) return store(p, v);
    _mm256_maskstore_ps(p, mask(n, 0), v.a);
    _mm256_maskstore_ps(p + 8, mask(n, 8), v.b);
  }
  static F set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static F add(F x, F y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
  static F sub(F x, F y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
  static F mul(F x, F y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
  static F div(F x, F y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
  static F fma(F x, F y, F z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
  static F max(F x, F y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
  static F min(F x, F y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
  static F rint(F x) {
    constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(x.a, kNearest), _mm256_round_ps(x.b, kNearest)};
  }
  static F load_half(const void* p) {
    const __m128i* from = static_cast<const __m128i*>(p);
    return {_mm256_cvtph_ps(_mm_loadu_si128(from)), _mm256_cvtph_ps(_mm_loadu_si128(from + 1))};
  }
  static void store_half_n(uint16_t* p, F v, int n) {
    uint16_t all[16];
    constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(all), _mm256_cvtps_ph(v.a, kNearest));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(all + 8), _mm256_cvtps_ph(v.b, kNearest));
    __builtin_memcpy(p, all, size_t(n) * 2);
  }
  static F load_bf16(const void* p) {
    const __m128i* from = static_cast<const __m128i*>(p);
    const __m256i a = _mm256_cvtepu16_epi32(_mm_loadu_si128(from));
    const __m256i b = _mm256_cvtepu16_epi32(_mm_loadu_si128(from + 1));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(b, 16))};
  }
  static M lt(F x, F y) { return {_mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ)}; }
  static M le(F x, F y) { return {_mm256_cmp_ps(x.a, y.a, _CMP_LE_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_LE_OQ)}; }
  static M eq(F x, F y) { return {_mm256_cmp_ps(x.a, y.a, _CMP_EQ_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_EQ_OQ)}; }
  static M both(M x, M y) { return {_mm256_and_ps(x.a, y.a), _mm256_and_ps(x.b, y.b)}; }
  static F select(M m, F yes, F no) { return {_mm256_blendv_ps(no.a, yes.a, m.a), _mm256_blendv_ps(no.b, yes.b, m.b)}; }
  static int count(M m) {
    return __builtin_popcount(unsigned(_mm256_movemask_ps(m.a))) + __builtin_popcount(unsigned(_mm256_movemask_ps(m.b)));
  }
  static bool all(M m) { return _mm256_movemask_ps(_mm256_and_ps(m.a, m.b)) == 0xff; }
  static I bits(F x) { return {_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)}; }
  static F floats(I x) { return {_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)}; }
  static I to_int(F x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }
  static F to_float(I x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
  static __m256 power_of_two(__m256 n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
  }
  static F times_power(F x, F n) { return mul(x, {power_of_two(n.a), power_of_two(n.b)}); }
  static I load_int(const int32_t* p) { return bits(load(reinterpret_cast<const float*>(p))); }
  static void store_int(int32_t* p, I v) { store(reinterpret_cast<float*>(p), floats(v)); }
  static I load_int_n(const int32_t* p, int n) { return bits(load_n(reinterpret_cast<const float*>(p), n)); }
  static void store_int_n(int32_t* p, I v, int n) { store_n(reinterpret_cast<float*>(p), floats(v), n); }
  static I add_int(I x, I y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
  static I sub_int(I x, I y) { return {_mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b)}; }
  static I and_int(I x, I y) { return {_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)}; }
  static I max_int(I x, I y) { return {_mm256_max_epi32(x.a, y.a), _mm256_max_epi32(x.b, y.b)}; }
  static I shift_left_4(I x) { return {_mm256_slli_epi32(x.a, 4), _mm256_slli_epi32(x.b, 4)}; }
  static I set1_int(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
  static int32_t reduce_max_int(I x) {
    const __m256i eight = _mm256_max_epi32(x.a, x.b);
    __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
  }
  static int32_t reduce_add_int(I x) {
    const __m256i eight = _mm256_add_epi32(x.a, x.b);
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
  }
  // of[j]: of v[j].
  static void reduce_max_int4(const I* v, int32_t* of) {
    for (int j = 0; j < 4; j++) of[j] = reduce_max_int(v[j]);
  }
  static void reduce_add_int4(const I* v, int32_t* of) {
    for (int j = 0; j < 4; j++) of[j] = reduce_add_int(v[j]);
  }
  static float fold(F v) {
    const __m256 eight = _mm256_add_ps(v.a, v.b);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
  template <int H>
  static F butterfly(F v) {
    if (H == 8) return {_mm256_add_ps(v.a, v.b), _mm256_sub_ps(v.a, v.b)};
    return {butterfly8<H>(v.a), butterfly8<H>(v.b)};
  }
  template <int H>
  static __m256 butterfly8(__m256 v) {
    constexpr int kUpper = H == 1 ? 0xaa : H == 2 ? 0xcc : 0xf0;
    const __m256 other = H == 1   ? _mm256_permute_ps(v, 0xb1)
                         : H == 2 ? _mm256_permute_ps(v, 0x4e)
                                  : _mm256_permute2f128_ps(v, v, 1);
    return _mm256_blend_ps(_mm256_add_ps(v, other), _mm256_sub_ps(other, v), kUpper);
  }
  static void store_int8(int8_t* p, I x) {
    const __m128i a = _mm_packs_epi32(_mm256_castsi256_si128(x.a), _mm256_extracti128_si256(x.a, 1));
    const __m128i b = _mm_packs_epi32(_mm256_castsi256_si128(x.b), _mm256_extracti128_si256(x.b, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(a, b));
  }
};

inline __m256i broadcast4(const uint8_t* p) {
  int32_t word;
  __builtin_memcpy(&word, p, 4);
  return _mm256_set1_epi32(word);
}

// Adds the products of a w4 group to sums: [2, T], of 8 rows each. step(sum, w, inputs): the sum and the products of 8 rows x 4
// inputs, bytes of the nibbles, with 4 of a token. Each sum is what it is after each step: a compiler that puts additions off
// runs out of registers, which takes 1.6 times as long.
template <int T, class Step>
inline void add_products(const uint8_t* nibbles, const uint8_t* q, size_t stride, __m256i (*sums)[T], const Step& step) {
  const __m256i low_nibbles = _mm256_set1_epi8(15);
#pragma GCC unroll 8
  for (int part = 0; part < 8; part++) {
    __m256i w[2];
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
      w[half] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(nibbles + size_t(part / 2) * 64 + size_t(half) * 32));
      w[half] = _mm256_and_si256(part % 2 == 0 ? w[half] : _mm256_srli_epi16(w[half], 4), low_nibbles);
    }
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) {
      const __m256i inputs = broadcast4(q + size_t(t) * stride + size_t(part) * 4);
      sums[0][t] = step(sums[0][t], w[0], inputs);
      sums[1][t] = step(sums[1][t], w[1], inputs);
      __asm__("" : "+x"(sums[0][t]), "+x"(sums[1][t]));
    }
  }
}

}  // namespace
}  // namespace potluck
