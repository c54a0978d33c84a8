// Kernels over 16 float lanes, the same for every instruction set; w4_matmul alone is written by each file itself. The
// including file defines, in an anonymous namespace of potluck, `struct Lanes` with
//   F, I, M            16 floats, 16 int32, 16 truths
//   kRegisters, kSums  how many F fit the register file, and how many of them beside the products of a w4 group
//   load, load_n, store, store_n, set1, add, sub, mul, div, fma, max (a > b ? a : b), min (a < b ? a : b), rint
//   load_half (16 halves), store_half_n, load_bf16 (16 bf16)
//   lt, le, eq, both, select, count (how many are true), all (are), first (lanes 0 .. n - 1)
//   bits, floats (reinterpret), to_int (round to nearest even), to_float, load_int, load_int_n, store_int, store_int_n, add_int, and_int,
//   sub_int, max_int, shift_left_4, set1_int, reduce_max_int, reduce_add_int, store_int8, fold (the sum, by halves),
//   times_power (x * 2^n for whole n),
//   butterfly<H> (lanes i and i + H, for each i without bit H, become their sum and difference)
// and here is what docs/numerics.md says, in the order of reference.cc.
#pragma once
#include "constants.h"
#include "kernels.h"

namespace potluck {
namespace {

using F = Lanes::F;
using I = Lanes::I;
using M = Lanes::M;

inline int least(int a, int b) { return a < b ? a : b; }

// Of x of at most kExpHigh.
inline F exp_below(F x) {
  const F n = Lanes::rint(Lanes::mul(x, Lanes::set1(kLog2e)));
  F r = Lanes::fma(n, Lanes::set1(-kLn2High), x);
  r = Lanes::fma(n, Lanes::set1(-kLn2Low), r);
  F y = Lanes::set1(kExp6);
  y = Lanes::fma(y, r, Lanes::set1(kExp5));
  y = Lanes::fma(y, r, Lanes::set1(kExp4));
  y = Lanes::fma(y, r, Lanes::set1(kExp3));
  y = Lanes::fma(y, r, Lanes::set1(kExp2));
  y = Lanes::fma(y, r, Lanes::set1(1.0f));
  y = Lanes::fma(y, r, Lanes::set1(1.0f));
  return Lanes::select(Lanes::lt(x, Lanes::set1(kExpLow)), Lanes::set1(0.0f), Lanes::times_power(y, n));
}

inline F exp_lanes(F x) { return exp_below(Lanes::min(Lanes::set1(kExpHigh), x)); }

void exp_many(const float* x, int n, float* y) {
  for (int i = 0; i < n; i += 16) Lanes::store_n(y + i, exp_lanes(Lanes::load_n(x + i, least(16, n - i))), least(16, n - i));
}

void silu_mul(const float* gate, const float* up, int n, float* h) {
  for (int i = 0; i < n; i += 16) {
    const int count = least(16, n - i);
    const F g = Lanes::load_n(gate + i, count), u = Lanes::load_n(up + i, count);
    const F below = Lanes::add(Lanes::set1(1.0f), exp_lanes(Lanes::mul(g, Lanes::set1(-1.0f))));
    Lanes::store_n(h + i, Lanes::mul(Lanes::div(g, below), u), count);
  }
}

void gelu_mul(const float* gate, const float* up, int n, float* h) {
  for (int i = 0; i < n; i += 16) {
    const int count = least(16, n - i);
    const F g = Lanes::load_n(gate + i, count), u = Lanes::load_n(up + i, count);
    const F z = Lanes::mul(g, Lanes::fma(Lanes::mul(g, g), Lanes::set1(kGelu3), Lanes::set1(kGelu1)));
    const F below = Lanes::add(Lanes::set1(1.0f), exp_lanes(Lanes::mul(z, Lanes::set1(-1.0f))));
    Lanes::store_n(h + i, Lanes::mul(Lanes::div(g, below), u), count);
  }
}

inline F cap_lanes(F x, float cap) {
  const F e = exp_lanes(Lanes::mul(x, Lanes::set1(2.0f / cap)));
  const F small = Lanes::div(Lanes::set1(2.0f), Lanes::add(e, Lanes::set1(1.0f)));
  return Lanes::mul(Lanes::set1(cap), Lanes::sub(Lanes::set1(1.0f), small));
}

void soft_cap(float* x, int n, float cap) {
  for (int i = 0; i < n; i += 16) {
    const int count = least(16, n - i);
    Lanes::store_n(x + i, cap_lanes(Lanes::load_n(x + i, count), cap), count);
  }
}

inline I magnitudes(F a) { return Lanes::and_int(Lanes::bits(a), Lanes::set1_int(0x7fffffff)); }

inline float float_of(int32_t bits) {
  float f;
  __builtin_memcpy(&f, &bits, 4);
  return f;
}

inline F steps(F x, float low, float high) {
  return Lanes::min(Lanes::max(Lanes::rint(x), Lanes::set1(low)), Lanes::set1(high));
}

// 1 over the step of 8 bits.
inline F steps8_by(float amax) { return Lanes::set1(amax < kQuantizeLeast ? 0.0f : 127.0f / amax); }

// Stores the 8-bit steps of one group of 32, from a and b; returns the sums of their lanes.
inline I store_steps8(F a, F b, F by, int8_t* q) {
  const F low = Lanes::set1(-127.0f), high = Lanes::set1(127.0f);
  // to_int rounds as rint does, and the bounds are whole numbers.
  const I qa = Lanes::to_int(Lanes::min(Lanes::max(Lanes::mul(a, by), low), high));
  const I qb = Lanes::to_int(Lanes::min(Lanes::max(Lanes::mul(b, by), low), high));
  Lanes::store_int8(q, qa);
  Lanes::store_int8(q + 16, qb);
  return Lanes::add_int(qa, qb);
}

// At most kBlockGroups groups of 32 with one scale.
inline void quantize8_block(const float* x, int groups, int8_t* q, float* scale, int32_t* bias) {
  I lanes[kBlockGroups];
  int32_t sums[kBlockGroups];
  I most = Lanes::set1_int(0);
  for (int i = 0; i < groups * 2; i++) most = Lanes::max_int(most, magnitudes(Lanes::load(x + i * 16)));
  const float amax = float_of(Lanes::reduce_max_int(most));
  const F by = steps8_by(amax);
  for (int g = 0; g < groups; g++) {
    scale[g] = amax / 127.0f;
    lanes[g] = store_steps8(Lanes::load(x + g * 32), Lanes::load(x + g * 32 + 16), by, q + g * 32);
  }
  for (int g = groups; g < kBlockGroups; g++) lanes[g] = Lanes::set1_int(0);
  Lanes::reduce_add_int4(lanes, sums);
  for (int g = 0; g < groups; g++) bias[g] = -8 * sums[g];
}

void quantize8(const float* x, int groups, int8_t* q, float* scale, int32_t* bias) {
  for (int g = 0; g < groups; g += kBlockGroups)
    quantize8_block(x + g * 32, least(kBlockGroups, groups - g), q + g * 32, scale + g, bias + g);
}

void quantize4(const float* x, int groups, int8_t* q, float* scale, int32_t* bias) {
  for (int g = 0; g < groups; g++, x += 32, q += 32) {
    const F a = Lanes::load(x), b = Lanes::load(x + 16);
    const float amax = float_of(Lanes::reduce_max_int(Lanes::max_int(magnitudes(a), magnitudes(b))));
    const F top = Lanes::set1(amax);
    const float far = Lanes::count(Lanes::eq(a, top)) + Lanes::count(Lanes::eq(b, top)) > 0 ? amax : -amax;
    const F by = Lanes::set1(amax < kQuantizeLeast ? 0.0f : -8.0f / far);
    const F va = steps(Lanes::mul(a, by), -8.0f, 7.0f), vb = steps(Lanes::mul(b, by), -8.0f, 7.0f);
    const F zero = Lanes::set1(0.0f);
    const float square = Lanes::fold(Lanes::fma(vb, vb, Lanes::fma(va, va, zero)));
    const float fit = Lanes::fold(Lanes::fma(b, vb, Lanes::fma(a, va, zero))) / square;
    scale[g] = __builtin_fabsf(fit) <= amax ? fit : far / -8.0f;
    const I qa = Lanes::to_int(va), qb = Lanes::to_int(vb);
    Lanes::store_int8(q, qa);
    Lanes::store_int8(q + 16, qb);
    bias[g] = -8 * Lanes::reduce_add_int(Lanes::add_int(qa, qb));
  }
}

void hadamard(float* x, int groups) {
  for (int g = 0; g < groups; g++, x += 32) {
    F a = Lanes::load(x), b = Lanes::load(x + 16);
    a = Lanes::butterfly<8>(Lanes::butterfly<4>(Lanes::butterfly<2>(Lanes::butterfly<1>(a))));
    b = Lanes::butterfly<8>(Lanes::butterfly<4>(Lanes::butterfly<2>(Lanes::butterfly<1>(b))));
    Lanes::store(x, Lanes::add(a, b));
    Lanes::store(x + 16, Lanes::sub(a, b));
  }
}

void rmsnorm(const float* x, const float* weight, int n, float epsilon, float* y) {
  F s = Lanes::set1(0.0f);
  for (int i = 0; i < n; i += 16) {
    const F v = Lanes::load_n(x + i, least(16, n - i));
    s = Lanes::fma(v, v, s);
  }
  const float r = 1.0f / __builtin_sqrtf(Lanes::fold(s) / float(n) + epsilon);
  for (int i = 0; i < n; i += 16) {
    const int count = least(16, n - i);
    const F v = Lanes::mul(Lanes::load_n(x + i, count), Lanes::set1(r));
    Lanes::store_n(y + i, Lanes::mul(v, Lanes::load_n(weight + i, count)), count);
  }
  for (int i = n; i % 32 != 0; i++) y[i] = 0;
}

void rope(float* x, const float* c, const float* s, int half, float scale) {
  for (int i = 0; i < half; i += 16) {
    const int n = least(16, half - i);
    const F a = Lanes::load_n(x + i, n), b = Lanes::load_n(x + half + i, n);
    const F cs = Lanes::load_n(c + i, n), sn = Lanes::load_n(s + i, n);
    const F left = Lanes::sub(Lanes::mul(a, cs), Lanes::mul(b, sn));
    const F right = Lanes::add(Lanes::mul(b, cs), Lanes::mul(a, sn));
    Lanes::store_n(x + i, Lanes::mul(left, Lanes::set1(scale)), n);
    Lanes::store_n(x + half + i, Lanes::mul(right, Lanes::set1(scale)), n);
  }
}

// v: what add_fixed adds for some lanes, `outside` of which are clamped.
inline I to_fixed(F v, F limit, int* outside) {
  const M inside = Lanes::le(Lanes::floats(magnitudes(v)), limit);
  *outside = 0;
  if (Lanes::all(inside)) return Lanes::to_int(v);
  *outside = 16 - Lanes::count(inside);
  const F zero = Lanes::set1(0.0f), low = Lanes::sub(zero, limit);
  const F clamped = Lanes::select(Lanes::lt(zero, v), limit, Lanes::select(Lanes::lt(v, zero), low, zero));
  return Lanes::to_int(Lanes::select(inside, v, clamped));
}

int64_t add_fixed(const float* v, const float* scale, int n, float limit, int32_t* partial) {
  const F high = Lanes::set1(limit);
  int64_t saturated = 0;
  int i = 0, outside;
  for (; i + 16 <= n; i += 16) {
    const I add = to_fixed(Lanes::mul(Lanes::load(v + i), Lanes::load(scale + i)), high, &outside);
    Lanes::store_int(partial + i, Lanes::add_int(Lanes::load_int(partial + i), add));
    saturated += outside;
  }
  if (i < n) {
    const F r = Lanes::mul(Lanes::load_n(v + i, n - i), Lanes::load_n(scale + i, n - i));
    const I add = to_fixed(r, high, &outside);
    Lanes::store_int_n(partial + i, Lanes::add_int(Lanes::load_int_n(partial + i, n - i), add), n - i);
    saturated += outside;
  }
  return saturated;
}

void add_residual(float* residual, const int32_t* partial, const float* inverse, int n) {
  for (int i = 0; i < n; i += 16) {
    const int count = least(16, n - i);
    const F p = Lanes::to_float(Lanes::load_int_n(partial + i, count));
    const F change = Lanes::mul(p, Lanes::load_n(inverse + i, count));
    Lanes::store_n(residual + i, Lanes::add(Lanes::load_n(residual + i, count), change), count);
  }
}

}  // namespace
}  // namespace potluck
