// Kernels over 16 float lanes, the same for every instruction set; w4_matmul alone is written by each file itself. The
// including file defines, in an anonymous namespace of potluck, `struct Lanes` with
//   F, I, M            16 floats, 16 int32, 16 truths
//   kRegisters         how many F fit the register file
//   load, load_n, store, store_n, set1, add, sub, mul, div, fma, max (a > b ? a : b), min (a < b ? a : b), rint
//   load_half (16 halves), store_half_n, load_bf16 (16 bf16)
//   lt, le, both, select, count (how many are true), first (lanes 0 .. n - 1)
//   bits, floats (reinterpret), to_int (round to nearest even), to_float, load_int_n, store_int_n, add_int, and_int,
//   max_int, shift_left_23, set1_int, reduce_max_int, reduce_add_int, store_int8
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

inline float fold(F v) {
  float s[16];
  Lanes::store(s, v);
  for (int half = 8; half >= 1; half /= 2)
    for (int l = 0; l < half; l++) s[l] += s[l + half];
  return s[0];
}

inline F exp_lanes(F x) {
  const F capped = Lanes::min(Lanes::set1(kExpHigh), x);
  const F n = Lanes::rint(Lanes::mul(capped, Lanes::set1(kLog2e)));
  F r = Lanes::fma(n, Lanes::set1(-kLn2High), capped);
  r = Lanes::fma(n, Lanes::set1(-kLn2Low), r);
  F y = Lanes::set1(kExp6);
  y = Lanes::fma(y, r, Lanes::set1(kExp5));
  y = Lanes::fma(y, r, Lanes::set1(kExp4));
  y = Lanes::fma(y, r, Lanes::set1(kExp3));
  y = Lanes::fma(y, r, Lanes::set1(kExp2));
  y = Lanes::fma(y, r, Lanes::set1(1.0f));
  y = Lanes::fma(y, r, Lanes::set1(1.0f));
  const I power = Lanes::shift_left_23(Lanes::add_int(Lanes::to_int(n), Lanes::set1_int(127)));
  y = Lanes::mul(y, Lanes::floats(power));
  return Lanes::select(Lanes::lt(x, Lanes::set1(kExpLow)), Lanes::set1(0.0f), y);
}

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

void quantize(const float* x, int groups, int8_t* q, float* scale, int32_t* bias) {
  const I magnitude = Lanes::set1_int(0x7fffffff);
  for (int g = 0; g < groups; g++, x += 32, q += 32) {
    const F a = Lanes::load(x), b = Lanes::load(x + 16);
    const I most = Lanes::max_int(Lanes::and_int(Lanes::bits(a), magnitude), Lanes::and_int(Lanes::bits(b), magnitude));
    const int32_t amax_bits = Lanes::reduce_max_int(most);
    float amax;
    __builtin_memcpy(&amax, &amax_bits, 4);
    scale[g] = amax / 127.0f;
    const F inverse = Lanes::set1(amax < kQuantizeLeast ? 0.0f : 127.0f / amax);
    const F low = Lanes::set1(-127.0f), high = Lanes::set1(127.0f);
    const I qa = Lanes::to_int(Lanes::min(Lanes::max(Lanes::rint(Lanes::mul(a, inverse)), low), high));
    const I qb = Lanes::to_int(Lanes::min(Lanes::max(Lanes::rint(Lanes::mul(b, inverse)), low), high));
    Lanes::store_int8(q, qa);
    Lanes::store_int8(q + 16, qb);
    bias[g] = -8 * Lanes::reduce_add_int(Lanes::add_int(qa, qb));
  }
}

void rmsnorm(const float* x, const float* weight, int n, float epsilon, float* y) {
  F s = Lanes::set1(0.0f);
  for (int i = 0; i < n; i += 16) {
    const F v = Lanes::load_n(x + i, least(16, n - i));
    s = Lanes::fma(v, v, s);
  }
  const float r = 1.0f / __builtin_sqrtf(fold(s) / float(n) + epsilon);
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

int64_t add_fixed(const float* v, const float* scale, int n, float limit, int32_t* partial) {
  const F high = Lanes::set1(limit), low = Lanes::set1(-limit), zero = Lanes::set1(0.0f);
  int64_t saturated = 0;
  for (int i = 0; i < n; i += 16) {
    const int count = least(16, n - i);
    F r = Lanes::mul(Lanes::load_n(v + i, count), Lanes::load_n(scale + i, count));
    const M inside = Lanes::both(Lanes::le(low, r), Lanes::le(r, high));
    saturated += 16 - Lanes::count(inside);
    const F clamped = Lanes::select(Lanes::lt(zero, r), high, Lanes::select(Lanes::lt(r, zero), low, zero));
    r = Lanes::select(inside, r, clamped);
    const I sum = Lanes::add_int(Lanes::load_int_n(partial + i, count), Lanes::to_int(r));
    Lanes::store_int_n(partial + i, sum, count);
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

void to_half(const float* x, int n, uint16_t* y) {
  for (int i = 0; i < n; i += 16)
    Lanes::store_half_n(y + i, Lanes::load_n(x + i, least(16, n - i)), least(16, n - i));
}

// --- weights from memory ---

// Bytes that a stream of weights is fetched ahead where few tokens use it: the processor's own prefetch stops at the end
// of every page. May point behind the panel; a prefetch never faults.
constexpr size_t kAhead = 4096;

// The share of one w4 group, scales included, of the bytes to come.
inline void prefetch_group(const uint8_t* at) {
  for (size_t line = 0; line < 320; line += 64) __builtin_prefetch(at + line + kAhead);
}

// --- bf16 ---

// B row blocks times T tokens: B * T chains of additions in flight.
template <int B, int T>
inline void bf16_part(const uint8_t* panel, size_t block_bytes, int columns, const float* x, size_t x_stride, float* out,
                      size_t out_stride) {
  F acc[B][T];
  for (int b = 0; b < B; b++)
    for (int t = 0; t < T; t++) acc[b][t] = Lanes::set1(0.0f);
  for (int k = 0; k < columns; k++) {
    if (T <= 2 && k % 2 == 0)
      for (int b = 0; b < B; b++) __builtin_prefetch(panel + size_t(b) * block_bytes + size_t(k) * 32 + kAhead);
    F w[B];
    for (int b = 0; b < B; b++) w[b] = Lanes::load_bf16(panel + size_t(b) * block_bytes + size_t(k) * 32);
    for (int t = 0; t < T; t++) {
      const F xs = Lanes::set1(x[size_t(t) * x_stride + size_t(k)]);
      for (int b = 0; b < B; b++) acc[b][t] = Lanes::fma(w[b], xs, acc[b][t]);
    }
  }
  for (int b = 0; b < B; b++)
    for (int t = 0; t < T; t++) Lanes::store(out + size_t(t) * out_stride + size_t(b) * 16, acc[b][t]);
}

template <int B, int T>
inline void bf16_blocks(const uint8_t* panel, int blocks, int columns, const float* x, size_t x_stride, float* out,
                        size_t out_stride) {
  const size_t block_bytes = size_t(columns) * 32;
  int b = 0;
  for (; b + B <= blocks; b += B)
    bf16_part<B, T>(panel + size_t(b) * block_bytes, block_bytes, columns, x, x_stride, out + size_t(b) * 16, out_stride);
  for (; b < blocks; b++)
    bf16_part<1, T>(panel + size_t(b) * block_bytes, block_bytes, columns, x, x_stride, out + size_t(b) * 16, out_stride);
}

void bf16_matmul(const uint8_t* panel, int blocks, int columns, const float* x, size_t x_stride, int tokens, float* out,
                 size_t out_stride) {
  constexpr bool kMany = Lanes::kRegisters >= 32;
  constexpr int kWide = kMany ? 8 : 4;
  int t = 0;
  for (; t + kWide <= tokens; t += kWide)
    bf16_blocks<kMany ? 2 : 1, kWide>(panel, blocks, columns, x + size_t(t) * x_stride, x_stride,
                                      out + size_t(t) * out_stride, out_stride);
  for (; t + 4 <= tokens; t += 4)
    bf16_blocks<kMany ? 4 : 1, 4>(panel, blocks, columns, x + size_t(t) * x_stride, x_stride,
                                  out + size_t(t) * out_stride, out_stride);
  for (; t + 2 <= tokens; t += 2)
    bf16_blocks<kMany ? 4 : 2, 2>(panel, blocks, columns, x + size_t(t) * x_stride, x_stride,
                                  out + size_t(t) * out_stride, out_stride);
  for (; t < tokens; t++)
    bf16_blocks<4, 1>(panel, blocks, columns, x + size_t(t) * x_stride, x_stride, out + size_t(t) * out_stride, out_stride);
}

// --- attention ---

// How keys and values are stored.
struct HalfKv {
  static constexpr size_t bytes = 2;
  static F load(const uint8_t* at) { return Lanes::load_half(at); }
};
struct FloatKv {
  static constexpr size_t bytes = 4;
  static F load(const uint8_t* at) { return Lanes::load(reinterpret_cast<const float*>(at)); }
};

inline const uint8_t* page_at(const AttentionArgs& a, int page) {
  return a.kv + size_t(a.pages[page]) * a.page_bytes;
}

inline size_t score_stride(const AttentionArgs& a) { return size_t((a.positions + 15) / 16 * 16); }

// Scores of H heads (from `head`) with the keys of P pages.
template <class Kv, int H, int P>
inline void score_pages(const AttentionArgs& a, int head, int page) {
  const size_t dim = size_t(a.head_dim), stride = score_stride(a);
  const float* q = a.q + size_t(head) * dim;
  const uint8_t* keys[P];
  for (int p = 0; p < P; p++) keys[p] = page_at(a, page + p);
  F acc[H][P];
  for (int h = 0; h < H; h++)
    for (int p = 0; p < P; p++) acc[h][p] = Lanes::set1(0.0f);
  for (size_t d = 0; d < dim; d++) {
    F k[P];
    for (int p = 0; p < P; p++) k[p] = Kv::load(keys[p] + d * 16 * Kv::bytes);
    for (int h = 0; h < H; h++) {
      const F qs = Lanes::set1(q[size_t(h) * dim + d]);
      for (int p = 0; p < P; p++) acc[h][p] = Lanes::fma(qs, k[p], acc[h][p]);
    }
  }
  for (int h = 0; h < H; h++)
    for (int p = 0; p < P; p++) Lanes::store(a.scores + size_t(h) * stride + size_t(page + p) * 16, acc[h][p]);
}

// Scores [positions] become exp(score - max), zero behind the last; returns their sum.
inline float softmax(float* scores, int positions) {
  const F lowest = Lanes::set1(-__builtin_inff());
  const int whole = positions / 16 * 16, rest = positions - whole;
  const M some = Lanes::first(rest);
  F most = lowest;
  for (int t = 0; t < whole; t += 16) most = Lanes::max(Lanes::load(scores + t), most);
  if (rest > 0) most = Lanes::max(Lanes::select(some, Lanes::load(scores + whole), lowest), most);
  float lanes[16];
  Lanes::store(lanes, most);
  float top = lanes[0];
  for (int l = 1; l < 16; l++) top = lanes[l] > top ? lanes[l] : top;
  const F m = Lanes::set1(top);
  F sum = Lanes::set1(0.0f);
  for (int t = 0; t < whole; t += 16) {
    const F p = exp_lanes(Lanes::sub(Lanes::load(scores + t), m));
    Lanes::store(scores + t, p);
    sum = Lanes::add(sum, p);
  }
  if (rest > 0) {
    const F p = Lanes::select(some, exp_lanes(Lanes::sub(Lanes::load(scores + whole), m)), Lanes::set1(0.0f));
    Lanes::store(scores + whole, p);
    sum = Lanes::add(sum, p);
  }
  return fold(sum);
}

// Values of D vectors of channels (from channel `d`) for H heads.
template <class Kv, int H, int D>
inline void weigh_values(const AttentionArgs& a, int head, size_t d, const float* sums) {
  const size_t dim = size_t(a.head_dim), stride = score_stride(a);
  F acc[H][D];
  for (int h = 0; h < H; h++)
    for (int e = 0; e < D; e++) acc[h][e] = Lanes::set1(0.0f);
  for (int t = 0; t < a.positions; t += 16) {
    const uint8_t* values = page_at(a, t / 16) + (dim * 16 + d) * Kv::bytes;
    const int count = least(16, a.positions - t);
    for (int j = 0; j < count; j++) {
      F v[D];
      for (int e = 0; e < D; e++) v[e] = Kv::load(values + (size_t(j) * dim + size_t(e) * 16) * Kv::bytes);
      for (int h = 0; h < H; h++) {
        const F p = Lanes::set1(a.scores[size_t(h) * stride + size_t(t + j)]);
        for (int e = 0; e < D; e++) acc[h][e] = Lanes::fma(p, v[e], acc[h][e]);
      }
    }
  }
  for (int h = 0; h < H; h++)
    for (int e = 0; e < D; e++) {
      const size_t channel = d + size_t(e) * 16;
      Lanes::store_n(a.out + size_t(head + h) * dim + channel, Lanes::div(acc[h][e], Lanes::set1(sums[h])),
                     least(16, int(dim - channel)));
    }
}

template <class Kv, int H>
inline void attend_heads(const AttentionArgs& a, int head) {
  constexpr bool kMany = Lanes::kRegisters >= 32;
  constexpr int P = kMany ? (H <= 2 ? 4 : 2) : (H == 1 ? 4 : H == 2 ? 2 : 1);
  constexpr int D = kMany ? 4 : H <= 2 ? 2 : 1;
  const int pages = (a.positions + 15) / 16;
  int page = 0;
  for (; page + P <= pages; page += P) score_pages<Kv, H, P>(a, head, page);
  for (; page < pages; page++) score_pages<Kv, H, 1>(a, head, page);
  float sums[H];
  for (int h = 0; h < H; h++) sums[h] = softmax(a.scores + size_t(h) * score_stride(a), a.positions);
  const size_t dim = size_t(a.head_dim);
  size_t d = 0;
  for (; d + D * 16 <= dim; d += D * 16) weigh_values<Kv, H, D>(a, head, d, sums);
  for (; d < dim; d += 16) weigh_values<Kv, H, 1>(a, head, d, sums);
}

template <class Kv>
void attention(const AttentionArgs* a) {
  int head = 0;
  for (; head + 4 <= a->heads; head += 4) attend_heads<Kv, 4>(*a, head);
  const int rest = a->heads - head;
  if (rest == 3) attend_heads<Kv, 3>(*a, head);
  if (rest == 2) attend_heads<Kv, 2>(*a, head);
  if (rest == 1) attend_heads<Kv, 1>(*a, head);
}

}  // namespace
}  // namespace potluck
