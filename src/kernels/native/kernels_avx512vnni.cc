// AVX-512 with VNNI: one register is 16 float lanes, or 16 rows x 4 inputs of a w4 panel.
#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

namespace potluck {
namespace {

struct Lanes {
  using F = __m512;
  using I = __m512i;
  using M = __mmask16;
  static constexpr int kRegisters = 32;

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
  static M both(M a, M b) { return a & b; }
  static F select(M m, F yes, F no) { return _mm512_mask_blend_ps(m, no, yes); }
  static int count(M m) { return __builtin_popcount(m); }
  static I bits(F a) { return _mm512_castps_si512(a); }
  static F floats(I a) { return _mm512_castsi512_ps(a); }
  static I to_int(F a) { return _mm512_cvtps_epi32(a); }
  static F to_float(I a) { return _mm512_cvtepi32_ps(a); }
  static I load_int_n(const int32_t* p, int n) { return _mm512_maskz_loadu_epi32(first(n), p); }
  static void store_int_n(int32_t* p, I v, int n) { _mm512_mask_storeu_epi32(p, first(n), v); }
  static I add_int(I a, I b) { return _mm512_add_epi32(a, b); }
  static I and_int(I a, I b) { return _mm512_and_si512(a, b); }
  static I max_int(I a, I b) { return _mm512_max_epi32(a, b); }
  static I shift_left_23(I a) { return _mm512_slli_epi32(a, 23); }
  static I set1_int(int32_t x) { return _mm512_set1_epi32(x); }
  static int32_t reduce_max_int(I a) { return _mm512_reduce_max_epi32(a); }
  static int32_t reduce_add_int(I a) { return _mm512_reduce_add_epi32(a); }
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

// One row block times T tokens. The 32 products of a group add up exactly, from -8 * sum(q), in two chains.
template <int T>
inline void w4_block(const uint8_t* panel, size_t groups, const QuantizedRows& x, size_t token, float* out,
                     size_t out_stride) {
  const uint8_t* weight_scales = panel + groups * 256;
  const uint8_t* q = x.base + token * x.stride;
  const size_t scales_at = x.columns, biases_at = x.columns + groups * 4;
  const __m512i low_nibbles = _mm512_set1_epi8(15);
  __m512 acc[T];
  for (int t = 0; t < T; t++) acc[t] = _mm512_setzero_ps();
  for (size_t g = 0; g < groups; g++) {
    if (T <= 4) prefetch_group(panel + g * 288);
    __m512i low[4], high[4];
    for (int c = 0; c < 4; c++) {
      const __m512i w = _mm512_loadu_si512(panel + g * 256 + size_t(c) * 64);
      low[c] = _mm512_and_si512(w, low_nibbles);
      high[c] = _mm512_and_si512(_mm512_srli_epi16(w, 4), low_nibbles);
    }
    const __m512 ws = Lanes::load_half(weight_scales + g * 32);
    for (int t = 0; t < T; t++) {
      const uint8_t* row = q + size_t(t) * x.stride;
      __m512i even = broadcast4(row + biases_at + g * 4), odd = _mm512_setzero_si512();
      for (int c = 0; c < 4; c++) {
        even = _mm512_dpbusd_epi32(even, low[c], broadcast4(row + g * 32 + size_t(c) * 8));
        odd = _mm512_dpbusd_epi32(odd, high[c], broadcast4(row + g * 32 + size_t(c) * 8 + 4));
      }
      float scale;
      __builtin_memcpy(&scale, row + scales_at + g * 4, 4);
      const __m512 sum = _mm512_cvtepi32_ps(_mm512_add_epi32(even, odd));
      acc[t] = _mm512_fmadd_ps(sum, _mm512_mul_ps(ws, _mm512_set1_ps(scale)), acc[t]);
    }
  }
  for (int t = 0; t < T; t++) _mm512_storeu_ps(out + (token + size_t(t)) * out_stride, acc[t]);
}

void w4_matmul(const uint8_t* panel, int blocks, const QuantizedRows* x, int tokens, float* out, size_t out_stride) {
  const size_t groups = x->columns / 32;
  for (int b = 0; b < blocks; b++, panel += groups * 288, out += 16) {
    int t = 0;
    for (; t + 8 <= tokens; t += 8) w4_block<8>(panel, groups, *x, size_t(t), out, out_stride);
    for (; t + 4 <= tokens; t += 4) w4_block<4>(panel, groups, *x, size_t(t), out, out_stride);
    for (; t + 2 <= tokens; t += 2) w4_block<2>(panel, groups, *x, size_t(t), out, out_stride);
    for (; t < tokens; t++) w4_block<1>(panel, groups, *x, size_t(t), out, out_stride);
  }
}

}  // namespace

const Kernels kAvx512VnniKernels = {
    "avx512-vnni", w4_matmul, bf16_matmul, quantize,     rmsnorm, rope,
    exp_many,      silu_mul,  add_fixed,   add_residual, to_half, attention<HalfKv>,
    attention<FloatKv>,
};

}  // namespace potluck
#endif
