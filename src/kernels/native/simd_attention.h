// Attention of one token over pages of keys and values, over the lanes of simd_kernels.h: the walk that is the same however they
// are stored. A store has
//   prepare(args): what is done to the queries once
//   score<T>(args, head, stretch, top): scores of T heads into args.scores, the largest that are looked at into top: [T]
//   weigh<T>(args, head, stretch): weights of the values in place of the scores, and their sums
//   mix<T>(args, head, stretch): adds the weighted values to args.out
#pragma once
#include "nibble_kv.h"
#include "simd_kernels.h"

namespace potluck {
namespace {

// The key positions of a block of 16 that are looked at, as lanes: of positions from `start`.
struct Lookout {
  int low, high;
  Lookout(const AttentionArgs& a, int start)
      : low(a.first > start ? a.first - start : 0), high(least(16, a.positions - start)) {}
  bool all() const { return low == 0 && high == 16; }
  // v where it is looked at, else `other`.
  F keep(F v, F other) const {
    if (all()) return v;
    if (low >= 16 || high <= 0) return other;
    return Lanes::select(Lanes::first(low), other, Lanes::select(Lanes::first(high), v, other));
  }
};

inline F capped(F score, float cap) { return cap > 0 ? cap_lanes(score, cap) : score; }

inline float largest_lane(F v) {
  float lanes[16];
  Lanes::store(lanes, v);
  float top = lanes[0];
  for (int l = 1; l < 16; l++) top = lanes[l] > top ? lanes[l] : top;
  return top;
}

// exp(score - most) of 16 positions, zero where none is looked at.
inline F softened(const Lookout& look, const float* scores, F most) {
  return look.keep(exp_below(Lanes::sub(Lanes::load(scores), most)), Lanes::set1(0.0f));
}

// Pages that are weighed together, of which the first may lie before the first page that is looked at, the last behind the
// last one.
struct Stretch {
  int page, first, past;
  Stretch(const AttentionArgs& a, int page)
      : page(page), first(page > a.first_page() ? page : a.first_page()), past(least(page + kStretchPages, a.past_page())) {}
  bool has(int p) const { return p >= first && p < past; }
};

// What a head has so far: in `out` the sum of its weighted values, beside it the sums of its weights and its largest score.
inline float* sums_of(const AttentionArgs& a, int head) { return a.running + size_t(head) * kRunning; }
inline float* most_of(const AttentionArgs& a, int head) { return sums_of(a, head) + 16; }

template <class Change>
inline void change_out(const AttentionArgs& a, int head, const Change& change) {
  float* out = a.out + size_t(head) * size_t(a.head_dim);
  for (int d = 0; d < a.head_dim; d += 16) {
    const int n = least(16, a.head_dim - d);
    Lanes::store_n(out + d, change(Lanes::load_n(out + d, n)), n);
  }
}

// Where one of `top`, scores of a stretch, is larger than all before, what there is so far is made smaller accordingly.
inline void rise(const AttentionArgs& a, int head, F top) {
  float* most = most_of(a, head);
  if (Lanes::count(Lanes::lt(Lanes::set1(*most), top)) == 0) return;
  const float now = largest_lane(top);
  const F by = exp_lanes(Lanes::set1(*most - now));
  *most = now;
  float* sums = sums_of(a, head);
  Lanes::store(sums, Lanes::mul(Lanes::load(sums), by));
  change_out(a, head, [&](F out) { return Lanes::mul(out, by); });
}

// All of a stretch for T heads.
template <class Store, int T>
inline void attend(const AttentionArgs& a, int head, const Stretch& stretch) {
  F top[T];
  for (int t = 0; t < T; t++) top[t] = Lanes::set1(-__builtin_inff());
  Store::template score<T>(a, head, stretch, top);
  for (int t = 0; t < T; t++) rise(a, head + t, top[t]);
  Store::template weigh<T>(a, head, stretch);
  Store::template mix<T>(a, head, stretch);
}

template <class Store>
void attention(const AttentionArgs* args) {
  const AttentionArgs& a = *args;
  Store::prepare(a);
  for (int head = 0; head < a.heads; head++) {
    *most_of(a, head) = -__builtin_inff();
    Lanes::store(sums_of(a, head), Lanes::set1(0.0f));
    change_out(a, head, [](F) { return Lanes::set1(0.0f); });
  }
  for (int page = a.first_page() / kStretchPages * kStretchPages; page < a.past_page(); page += kStretchPages) {
    const Stretch stretch(a, page);
    int head = 0;
    for (; head + 4 <= a.heads; head += 4) attend<Store, 4>(a, head, stretch);
    const int rest = a.heads - head;
    if (rest == 3) attend<Store, 3>(a, head, stretch);
    if (rest == 2) attend<Store, 2>(a, head, stretch);
    if (rest == 1) attend<Store, 1>(a, head, stretch);
  }
  for (int head = 0; head < a.heads; head++) {
    const F sum = Lanes::set1(Lanes::fold(Lanes::load(sums_of(a, head))));
    change_out(a, head, [&](F out) { return Lanes::div(out, sum); });
  }
}

}  // namespace
}  // namespace potluck
