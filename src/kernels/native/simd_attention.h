// Attention of one token over pages of keys and values, over the lanes of simd_kernels.h.
#pragma once
#include "simd_kernels.h"

namespace potluck {
namespace {

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

// v in the lanes of keys first .. positions - 1 of the 16 that begin with key t, elsewhere `otherwise`.
inline F in_sight(F v, int t, const AttentionArgs& a, F otherwise) {
  if (a.positions - t < 16) v = Lanes::select(Lanes::first(a.positions - t), v, otherwise);
  if (a.first > t) v = Lanes::select(Lanes::first(a.first - t), otherwise, v);
  return v;
}

// Scores of the keys looked at become exp(score - max), those beside them in their pages zero; returns their sum.
inline float softmax(const AttentionArgs& a, float* scores) {
  const int begin = a.first / 16 * 16;
  const F lowest = Lanes::set1(-__builtin_inff());
  F most = lowest;
  for (int t = begin; t < a.positions; t += 16) {
    F s = Lanes::load(scores + t);
    if (a.soft_cap > 0) {
      s = cap_lanes(s, a.soft_cap);
      Lanes::store(scores + t, s);
    }
    most = Lanes::max(in_sight(s, t, a, lowest), most);
  }
  float lanes[16];
  Lanes::store(lanes, most);
  float top = lanes[0];
  for (int l = 1; l < 16; l++) top = lanes[l] > top ? lanes[l] : top;
  const F m = Lanes::set1(top);
  F sum = Lanes::set1(0.0f);
  for (int t = begin; t < a.positions; t += 16) {
    const F p = in_sight(exp_lanes(Lanes::sub(Lanes::load(scores + t), m)), t, a, Lanes::set1(0.0f));
    Lanes::store(scores + t, p);
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
  for (int t = a.first / 16 * 16; t < a.positions; t += 16) {
    const uint8_t* values = page_at(a, t / 16) + (dim * 16 + d) * Kv::bytes;
    const int count = least(16, a.positions - t);
    for (int j = a.first > t ? a.first - t : 0; j < count; j++) {
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
  int page = a.first / 16;
  for (; page + P <= pages; page += P) score_pages<Kv, H, P>(a, head, page);
  for (; page < pages; page++) score_pages<Kv, H, 1>(a, head, page);
  float sums[H];
  for (int h = 0; h < H; h++) sums[h] = softmax(a, a.scores + size_t(h) * score_stride(a));
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
