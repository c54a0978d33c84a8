// Attention over keys and values that are halves or floats.
#pragma once
#include "simd_attention.h"

namespace potluck {
namespace {

struct HalfKv {
  static constexpr size_t bytes = 2;
  static F load(const uint8_t* at) { return Lanes::load_half(at); }
};
struct FloatKv {
  static constexpr size_t bytes = 4;
  static F load(const uint8_t* at) { return Lanes::load(reinterpret_cast<const float*>(at)); }
};

// A page is the keys of 2 blocks, [head_dim, 16 positions] each, and the values, [32 positions, head_dim].
template <class Kv>
struct Channels {
  static void prepare(const AttentionArgs&) {}

  // Scores of T heads with both blocks of a page.
  template <int T>
  static void score_page(const AttentionArgs& a, int head, int page, float* scores, F* top) {
    const size_t dim = size_t(a.head_dim), block = dim * kKeyBlock * Kv::bytes;
    const uint8_t* keys = page_at(a, page);
    const float* q = a.q + size_t(head) * dim;
    F acc[T][2];
    for (int t = 0; t < T; t++) acc[t][0] = acc[t][1] = Lanes::set1(0.0f);
    for (size_t d = 0; d < dim; d++) {
      const F k[2] = {Kv::load(keys + d * kKeyBlock * Kv::bytes), Kv::load(keys + block + d * kKeyBlock * Kv::bytes)};
      for (int t = 0; t < T; t++) {
        const F qs = Lanes::set1(q[size_t(t) * dim + d]);
        for (int b = 0; b < 2; b++) acc[t][b] = Lanes::fma(qs, k[b], acc[t][b]);
      }
    }
    for (int b = 0; b < 2; b++) {
      const Lookout look(a, page * kPage + b * 16);
      for (int t = 0; t < T; t++) {
        const F score = capped(acc[t][b], a.soft_cap);
        Lanes::store(scores + size_t(t) * kStretch + size_t(b) * 16, score);
        top[t] = Lanes::max(look.keep(score, top[t]), top[t]);
      }
    }
  }

  template <int T>
  static void score(const AttentionArgs& a, int head, const Stretch& stretch, F* top) {
    for (int page = stretch.first; page < stretch.past; page++)
      score_page<T>(a, head, page, a.scores + (page - stretch.page) * kPage, top);
  }

  // Scores become exp(score - most).
  template <int T>
  static void weigh(const AttentionArgs& a, int head, const Stretch& stretch) {
    for (int t = 0; t < T; t++) {
      const F most = Lanes::set1(*most_of(a, head + t));
      F sum = Lanes::load(sums_of(a, head + t));
      for (int start = stretch.first * kPage; start < stretch.past * kPage; start += 16) {
        float* scores = a.scores + t * kStretch + start - stretch.page * kPage;
        const F p = softened(Lookout(a, start), scores, most);
        Lanes::store(scores, p);
        sum = Lanes::add(sum, p);
      }
      Lanes::store(sums_of(a, head + t), sum);
    }
  }

  // Values of D vectors of channels (from channel `d`) for T heads.
  template <int T, int D>
  static void mix_channels(const AttentionArgs& a, int head, size_t d, const Stretch& stretch) {
    const size_t dim = size_t(a.head_dim);
    const auto channels = [&](int e) { return least(16, int(dim - d) - e * 16); };
    const auto place = [&](int t, int e) { return a.out + size_t(head + t) * dim + d + size_t(e) * 16; };
    F acc[T][D];
    for (int t = 0; t < T; t++)
      for (int e = 0; e < D; e++) acc[t][e] = Lanes::load_n(place(t, e), channels(e));
    for (int page = stretch.first; page < stretch.past; page++) {
      const uint8_t* values = page_at(a, page) + (dim * kPage + d) * Kv::bytes;
      const float* weights = a.scores + (page - stretch.page) * kPage;
      const int start = page * kPage, from = a.first > start ? a.first - start : 0;
      const int to = least(kPage, a.positions - start);
      for (int j = from; j < to; j++) {
        F v[D];
        for (int e = 0; e < D; e++) v[e] = Kv::load(values + (size_t(j) * dim + size_t(e) * 16) * Kv::bytes);
        for (int t = 0; t < T; t++) {
          const F p = Lanes::set1(weights[t * kStretch + j]);
          for (int e = 0; e < D; e++) acc[t][e] = Lanes::fma(p, v[e], acc[t][e]);
        }
      }
    }
    for (int t = 0; t < T; t++)
      for (int e = 0; e < D; e++) Lanes::store_n(place(t, e), acc[t][e], channels(e));
  }

  template <int T>
  static void mix(const AttentionArgs& a, int head, const Stretch& stretch) {
    constexpr int D = Lanes::kRegisters >= 32 ? 4 : T <= 2 ? 2 : 1;
    const size_t dim = size_t(a.head_dim);
    size_t d = 0;
    for (; d + D * 16 <= dim; d += D * 16) mix_channels<T, D>(a, head, d, stretch);
    for (; d < dim; d += 16) mix_channels<T, 1>(a, head, d, stretch);
  }
};

}  // namespace
}  // namespace potluck
