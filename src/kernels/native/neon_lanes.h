// The lanes of simd_kernels.h with NEON as every 64-bit Arm processor has it: four registers are 16 floats.
#pragma once
#include <arm_neon.h>

#include "kernels.h"

namespace potluck {
namespace {

// Each of the four registers of one, two or three operands.
#define POTLUCK_EACH(op, x) {op(x.a), op(x.b), op(x.c), op(x.d)}
#define POTLUCK_EACH2(op, x, y) {op(x.a, y.a), op(x.b, y.b), op(x.c, y.c), op(x.d, y.d)}
#define POTLUCK_EACH3(op, x, y, z) {op(x.a, y.a, z.a), op(x.b, y.b, z.b), op(x.c, y.c, z.c), op(x.d, y.d, z.d)}

struct Lanes {
  struct F {
    float32x4_t a, b, c, d;
  };
  struct I {
    int32x4_t a, b, c, d;
  };
  struct M {
    uint32x4_t a, b, c, d;  // lanes of all ones or all zeros
  };
  static constexpr int kRegisters = 8, kSums = 4;

  static M first(int n) {
    const int32_t counted[4] = {0, 1, 2, 3};
    const int32x4_t lanes = vld1q_s32(counted);
    return {vcltq_s32(lanes, vdupq_n_s32(n)), vcltq_s32(lanes, vdupq_n_s32(n - 4)),
            vcltq_s32(lanes, vdupq_n_s32(n - 8)), vcltq_s32(lanes, vdupq_n_s32(n - 12))};
  }
  static F load(const float* p) { return {vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}; }
  static F load_n(const float* p, int n) {
    if (n == 16) return load(p);
    float all[16] = {};
    __builtin_memcpy(all, p, size_t(n) * 4);
    return load(all);
  }
  static void store(float* p, F v) {
    vst1q_f32(p, v.a);
    vst1q_f32(p + 4, v.b);
    vst1q_f32(p + 8, v.c);
    vst1q_f32(p + 12, v.d);
  }
  static void store_n(float* p, F v, int n) {
    if (n == 16) return store(p, v);
    float all[16];
    store(all, v);
    __builtin_memcpy(p, all, size_t(n) * 4);
  }
  static F set1(float x) { return {vdupq_n_f32(x), vdupq_n_f32(x), vdupq_n_f32(x), vdupq_n_f32(x)}; }
  static F add(F x, F y) { return POTLUCK_EACH2(vaddq_f32, x, y); }
  static F sub(F x, F y) { return POTLUCK_EACH2(vsubq_f32, x, y); }
  static F mul(F x, F y) { return POTLUCK_EACH2(vmulq_f32, x, y); }
  static F div(F x, F y) { return POTLUCK_EACH2(vdivq_f32, x, y); }
  static F fma(F x, F y, F z) { return POTLUCK_EACH3(vfmaq_f32, z, x, y); }
  // Not the instructions of that name: those give a NaN where either is one.
  static F max(F x, F y) { return select(lt(y, x), x, y); }
  static F min(F x, F y) { return select(lt(x, y), x, y); }
  static F rint(F x) { return POTLUCK_EACH(vrndnq_f32, x); }
  static float32x4_t widen_half(const uint8_t* p) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p))); }
  static F load_half(const void* p) {
    const uint8_t* from = static_cast<const uint8_t*>(p);
    return {widen_half(from), widen_half(from + 8), widen_half(from + 16), widen_half(from + 24)};
  }
  static void store_half_n(uint16_t* p, F v, int n) {
    uint16_t all[16];
    vst1_u16(all, vreinterpret_u16_f16(vcvt_f16_f32(v.a)));
    vst1_u16(all + 4, vreinterpret_u16_f16(vcvt_f16_f32(v.b)));
    vst1_u16(all + 8, vreinterpret_u16_f16(vcvt_f16_f32(v.c)));
    vst1_u16(all + 12, vreinterpret_u16_f16(vcvt_f16_f32(v.d)));
    __builtin_memcpy(p, all, size_t(n) * 2);
  }
  static float32x4_t widen_bf16(const uint8_t* p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(p)), 16));
  }
  static F load_bf16(const void* p) {
    const uint8_t* from = static_cast<const uint8_t*>(p);
    return {widen_bf16(from), widen_bf16(from + 8), widen_bf16(from + 16), widen_bf16(from + 24)};
  }
  static M lt(F x, F y) { return POTLUCK_EACH2(vcltq_f32, x, y); }
  static M le(F x, F y) { return POTLUCK_EACH2(vcleq_f32, x, y); }
  static M eq(F x, F y) { return POTLUCK_EACH2(vceqq_f32, x, y); }
  static M both(M x, M y) { return POTLUCK_EACH2(vandq_u32, x, y); }
  static F select(M m, F yes, F no) { return POTLUCK_EACH3(vbslq_f32, m, yes, no); }
  static int count(M m) {
    const uint32x4_t all = vaddq_u32(vaddq_u32(m.a, m.b), vaddq_u32(m.c, m.d));  // -1 for each that is true
    return -int(vaddvq_u32(all));
  }
  static bool all(M m) { return count(m) == 16; }
  static I bits(F x) { return POTLUCK_EACH(vreinterpretq_s32_f32, x); }
  static F floats(I x) { return POTLUCK_EACH(vreinterpretq_f32_s32, x); }
  static I to_int(F x) { return POTLUCK_EACH(vcvtnq_s32_f32, x); }
  static F to_float(I x) { return POTLUCK_EACH(vcvtq_f32_s32, x); }
  static I load_int(const int32_t* p) { return bits(load(reinterpret_cast<const float*>(p))); }
  static void store_int(int32_t* p, I v) { store(reinterpret_cast<float*>(p), floats(v)); }
  static I load_int_n(const int32_t* p, int n) { return bits(load_n(reinterpret_cast<const float*>(p), n)); }
  static void store_int_n(int32_t* p, I v, int n) { store_n(reinterpret_cast<float*>(p), floats(v), n); }
  static I add_int(I x, I y) { return POTLUCK_EACH2(vaddq_s32, x, y); }
  static I sub_int(I x, I y) { return POTLUCK_EACH2(vsubq_s32, x, y); }
  static I and_int(I x, I y) { return POTLUCK_EACH2(vandq_s32, x, y); }
  static I max_int(I x, I y) { return POTLUCK_EACH2(vmaxq_s32, x, y); }
  template <int N>
  static I shift_left(I x) {
    return {vshlq_n_s32(x.a, N), vshlq_n_s32(x.b, N), vshlq_n_s32(x.c, N), vshlq_n_s32(x.d, N)};
  }
  static I shift_left_4(I x) { return shift_left<4>(x); }
  static F times_power(F x, F n) { return mul(x, floats(shift_left<23>(add_int(to_int(n), set1_int(127))))); }
  static I set1_int(int32_t x) { return {vdupq_n_s32(x), vdupq_n_s32(x), vdupq_n_s32(x), vdupq_n_s32(x)}; }
  static int32_t reduce_max_int(I x) { return vmaxvq_s32(vmaxq_s32(vmaxq_s32(x.a, x.b), vmaxq_s32(x.c, x.d))); }
  static int32_t reduce_add_int(I x) { return vaddvq_s32(vaddq_s32(vaddq_s32(x.a, x.b), vaddq_s32(x.c, x.d))); }
  // of[j]: of v[j].
  static void reduce_max_int4(const I* v, int32_t* of) {
    for (int j = 0; j < 4; j++) of[j] = reduce_max_int(v[j]);
  }
  static void reduce_add_int4(const I* v, int32_t* of) {
    for (int j = 0; j < 4; j++) of[j] = reduce_add_int(v[j]);
  }
  static float fold(F v) {
    const float32x4_t four = vaddq_f32(vaddq_f32(v.a, v.c), vaddq_f32(v.b, v.d));
    const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
  }
  template <int H>
  static F butterfly(F v) {
    if (H == 8) return {vaddq_f32(v.a, v.c), vaddq_f32(v.b, v.d), vsubq_f32(v.a, v.c), vsubq_f32(v.b, v.d)};
    if (H == 4) return {vaddq_f32(v.a, v.b), vsubq_f32(v.a, v.b), vaddq_f32(v.c, v.d), vsubq_f32(v.c, v.d)};
    return POTLUCK_EACH(butterfly4<H>, v);
  }
  template <int H>
  static float32x4_t butterfly4(float32x4_t v) {
    const uint32_t upper[4] = {0, H == 1 ? ~0u : 0, H == 1 ? 0 : ~0u, ~0u};
    const float32x4_t other = H == 1 ? vrev64q_f32(v) : vextq_f32(v, v, 2);
    return vbslq_f32(vld1q_u32(upper), vsubq_f32(other, v), vaddq_f32(v, other));
  }
  static void store_int8(int8_t* p, I x) {
    const int16x8_t ab = vcombine_s16(vqmovn_s32(x.a), vqmovn_s32(x.b));
    const int16x8_t cd = vcombine_s16(vqmovn_s32(x.c), vqmovn_s32(x.d));
    vst1q_s8(p, vcombine_s8(vqmovn_s16(ab), vqmovn_s16(cd)));
  }
};

#undef POTLUCK_EACH
#undef POTLUCK_EACH2
#undef POTLUCK_EACH3

// Rows 4 r .. 4 r + 3 of the nibbles of a w4 group, as bytes (row * 4 + j): low[c] is inputs 8 c + j, high[c] 8 c + 4 + j.
struct FourRows {
  int8x16_t low[4], high[4];
  FourRows(const uint8_t* nibbles, int r) {
    for (int c = 0; c < 4; c++) {
      const uint8x16_t w = vld1q_u8(nibbles + size_t(c) * 64 + size_t(r) * 16);
      low[c] = vreinterpretq_s8_u8(vandq_u8(w, vdupq_n_u8(15)));
      high[c] = vreinterpretq_s8_u8(vshrq_n_u8(w, 4));
    }
  }
};

inline int32x4_t broadcast4(const uint8_t* p) {
  int32_t word;
  __builtin_memcpy(&word, p, 4);
  return vdupq_n_s32(word);
}

}  // namespace
}  // namespace potluck
