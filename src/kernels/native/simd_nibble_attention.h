// Keys and values as nibbles: how they are stored, and attention over them by w4_group (simd_matmul.h).
#pragma once
#include "simd_attention.h"
#include "simd_sums.h"

namespace potluck {
namespace {

constexpr int kMostHeadLanes = 64;  // a head of 1024 channels

// The scale with the least squared error for the steps that `scale` gives; `scale` where all steps are 0.
inline float fitted(const F* x, int vectors, float scale, float low, float high) {
  const F inverse = Lanes::set1(scale == 0 ? 0.0f : 1.0f / scale);
  F products = Lanes::set1(0.0f), squares = products;
  for (int i = 0; i < vectors; i++) {
    const F v = steps(Lanes::mul(x[i], inverse), low, high);
    products = Lanes::fma(x[i], v, products);
    squares = Lanes::fma(v, v, squares);
  }
  const float square = Lanes::fold(squares);
  return square > 0 ? Lanes::fold(products) / square : scale;
}

// The bits of the scale of n values (a half; a NaN where there is none), and its inverse. x: [vectors].
inline uint16_t choose_kv_scale(const F* x, int vectors, int levels, float* inverse) {
  I magnitude = magnitudes(x[0]);
  for (int i = 1; i < vectors; i++) magnitude = Lanes::max_int(magnitude, magnitudes(x[i]));
  const float amax = float_of(Lanes::reduce_max_int(magnitude));
  *inverse = __builtin_nanf("");
  if (!(amax < kKvMost)) return 0x7e00;
  int tops = 0;
  for (int i = 0; i < vectors; i++) tops += Lanes::count(Lanes::eq(x[i], Lanes::set1(amax)));
  const float far = tops > 0 ? amax : -amax;
  const float low = -float(levels), high = float(levels - 1);
  uint16_t best = 0x7e00;
  float least = __builtin_inff();
  for (int c = 0; c < (levels == 8 ? kKvCandidates : 1); c++) {
    const float first = far / -(levels == 8 ? kKvTargets4[c] : kKvTarget8);
    uint16_t half[16];
    Lanes::store_half_n(half, Lanes::set1(levels == 8 ? fitted(x, vectors, first, low, high) : first), 16);
    const F scale = Lanes::load_half(half);
    float one[16];
    Lanes::store(one, scale);
    const float by = one[0] == 0 ? 0.0f : 1.0f / one[0];
    const F minus = Lanes::mul(scale, Lanes::set1(-1.0f));
    F s = Lanes::set1(0.0f);
    for (int i = 0; i < vectors; i++) {
      const F rest = Lanes::fma(steps(Lanes::mul(x[i], Lanes::set1(by)), low, high), minus, x[i]);
      s = Lanes::fma(rest, rest, s);
    }
    const float error = Lanes::fold(s);
    if (error < least) {
      least = error;
      best = half[0];
      *inverse = by;
    }
  }
  return best;
}

// Loads n values into vectors, zeros behind them; steps of them: [16 * vectors].
inline int load_head(const float* from, int n, F* x) {
  int vectors = 0;
  for (int i = 0; i < n; i += 16) x[vectors++] = Lanes::load_n(from + i, least(16, n - i));
  return vectors;
}

inline void kv_steps(const F* x, int vectors, int levels, float inverse, int32_t* out) {
  for (int i = 0; i < vectors; i++) {
    const F v = steps(Lanes::mul(x[i], Lanes::set1(inverse)), -float(levels), float(levels - 1));
    Lanes::store_int_n(out + i * 16, Lanes::to_int(v), 16);
  }
}

// Steps as the nibbles of one of the planes.
inline void to_nibbles(const NibbleKv& kv, int plane, const int32_t* steps, int count, uint32_t* nibbles) {
  const int32_t from = levels_of(kv), right = kv.planes == 2 && plane == 0 ? 4 : 0;
  for (int i = 0; i < count; i++) nibbles[i] = uint32_t(steps[i] + from) >> right & 15;
}

// What put_nibble does for the 32 columns of a row.
inline void put_row(uint8_t* plane, int row, const uint32_t* nibbles) {
  for (int eighth = 0; eighth < 4; eighth++, nibbles += 8) {
    uint32_t bytes = 0;
    for (int i = 0; i < 4; i++) bytes |= (nibbles[i] | nibbles[i + 4] << 4) << (8 * i);
    __builtin_memcpy(plane + eighth * 64 + row * 4, &bytes, 4);
  }
}

// What put_nibble does for the first `rows` rows of a column.
inline void put_column(uint8_t* plane, int column, int rows, const uint32_t* nibbles) {
  uint8_t* at = plane + column / 8 * 64;
  const int shift = column % 4 * 8 + (column % 8 < 4 ? 0 : 4);
  uint32_t bytes[16];
  __builtin_memcpy(bytes, at, 64);
  for (int row = 0; row < rows; row++) bytes[row] = (bytes[row] & ~(15u << shift)) | nibbles[row] << shift;
  __builtin_memcpy(at, bytes, 64);
}

void store_key(const NibbleKv* kv, const float* key, int at, uint8_t* page) {
  uint8_t* block = page + size_t(at / kKeyBlock) * kv->key_block_bytes();
  const int row = at % kKeyBlock;
  for (int g = 0; g < int(kv->groups()); g++, block += kv->group_bytes()) {
    F x[2] = {Lanes::set1(0.0f), Lanes::set1(0.0f)};
    load_head(key + g * 32, least(32, kv->head_dim - g * 32), x);
    float inverse;
    const uint16_t scale = choose_kv_scale(x, 2, levels_of(*kv), &inverse);
    __builtin_memcpy(block + kv->plane_bytes() + size_t(row) * 2, &scale, 2);
    int32_t steps_of[32];
    kv_steps(x, 2, levels_of(*kv), inverse, steps_of);
    for (int plane = 0; plane < kv->planes; plane++) {
      uint32_t nibbles[32];
      to_nibbles(*kv, plane, steps_of, 32, nibbles);
      put_row(block + plane * 256, row, nibbles);
    }
  }
}

void store_value(const NibbleKv* kv, const float* value, int at, uint8_t* page) {
  F x[kMostHeadLanes];
  const int vectors = load_head(value, kv->head_dim, x);
  float inverse;
  const uint16_t scale = choose_kv_scale(x, vectors, levels_of(*kv), &inverse);
  __builtin_memcpy(page + kv->value_scales_at() + size_t(at) * 2, &scale, 2);
  int32_t steps_of[kMostHeadLanes * 16];
  kv_steps(x, vectors, levels_of(*kv), inverse, steps_of);
  uint8_t* planes = page + kv->values_at();
  for (int d = 0; d < kv->head_dim; d += 16)
    for (int plane = 0; plane < kv->planes; plane++, planes += 256) {
      const int rows = least(16, kv->head_dim - d);
      uint32_t nibbles[16];
      to_nibbles(*kv, plane, steps_of + d, rows, nibbles);
      put_column(planes, at, rows, nibbles);
    }
}

// The exact sums of P planes: (16 * high + low - 128) * q is 16 * (high - 8) * q + (low - 8) * q + 8 * q, and bias is -8 times
// the sum of q.
template <int P, int T, class Use>
inline void plane_group(const uint8_t* planes, const uint8_t* q, const uint8_t* bias, size_t stride, const Use& use) {
  if (P == 1) {
    w4_group<T>(planes, q, bias, stride, use);
    return;
  }
  I high[T];
  w4_group<T>(planes, q, bias, stride, [&](int t, I sum) __attribute__((always_inline)) { high[t] = sum; });
  w4_group<T>(planes + 256, q, bias, stride, [&](int t, I sum) __attribute__((always_inline)) {
    int32_t of;
    __builtin_memcpy(&of, bias + size_t(t) * stride, 4);
    use(t, Lanes::sub_int(Lanes::add_int(Lanes::shift_left_4(high[t]), sum), Lanes::set1_int(of)));
  });
}

// Asks memory for a part of the page that is a stretch further on, in this call or in the next: while one stretch is computed,
// the next comes. Once for all heads. Into the second level cache: the first has no room for so much on its way. A function
// that only asks counts as one without effect, whose calls a compiler may leave out: it must not be one.
__attribute__((always_inline)) inline void ask_ahead(const AttentionArgs& a, int head, int page, size_t from, size_t past) {
  if (head != 0) return;
  const uint8_t* at = a.kv;
  int then = page + kStretchPages;
  if (then >= a.past_page()) {
    then += a.first_page() - a.past_page();
    at = a.next;
    if (at == nullptr || then >= a.past_page()) return;
  }
  at += size_t(a.pages[then]) * a.page_bytes;
  for (size_t line = from; line < past; line += 64) __builtin_prefetch(at + line, 0, 2);
}

// Weighted scores of T heads, [T, kStretch], become as many quantized rows of kStretch columns, each where the scores of its
// head were; a scale for each page. Lanes of all heads and pages are reduced and divided together.
template <int T>
__attribute__((noinline)) void quantize_stretch(float* scores) {
  static_assert(T * kStretchPages <= 16 && kPage == 32, "lanes");
  float most[16] = {}, scales[16], by[16];
  for (int t = 0; t < T; t++) {
    I lanes[kStretchPages];
    for (int p = 0; p < kStretchPages; p++) {
      const float* x = scores + t * kStretch + p * kPage;
      lanes[p] = Lanes::max_int(magnitudes(Lanes::load(x)), magnitudes(Lanes::load(x + 16)));
    }
    int32_t of[kStretchPages];
    Lanes::reduce_max_int4(lanes, of);
    __builtin_memcpy(most + t * kStretchPages, of, sizeof of);
  }
  const F amax = Lanes::load(most), none = Lanes::set1(0.0f);
  Lanes::store(scales, Lanes::div(amax, Lanes::set1(127.0f)));
  Lanes::store(by, Lanes::select(Lanes::lt(amax, Lanes::set1(kQuantizeLeast)), none, Lanes::div(Lanes::set1(127.0f), amax)));
  for (int t = 0; t < T; t++) {
    float* x = scores + t * kStretch;
    int8_t* row = reinterpret_cast<int8_t*>(x);
    I lanes[kStretchPages];
    // Steps go where the first page was, which is read first.
    for (int p = 0; p < kStretchPages; p++)
      lanes[p] = store_steps8(Lanes::load(x + p * kPage), Lanes::load(x + p * kPage + 16),
                              Lanes::set1(by[t * kStretchPages + p]), row + p * kPage);
    int32_t of[kStretchPages];
    Lanes::reduce_add_int4(lanes, of);
    for (int p = 0; p < kStretchPages; p++) of[p] *= -8;
    __builtin_memcpy(row + kStretch, scales + t * kStretchPages, sizeof of);
    __builtin_memcpy(row + kStretch + sizeof of, of, sizeof of);
  }
}

template <int P>
struct Nibbles {
  static NibbleKv kv(const AttentionArgs& a) { return {a.head_dim, P}; }
  static size_t columns(const AttentionArgs& a) { return kv(a).groups() * 32; }
  // From row to row of a.queries, rows of QuantizedRows.
  static size_t query_bytes(const AttentionArgs& a) { return quantized_row_bytes(columns(a)); }

  static void prepare(const AttentionArgs& a) {
    for (int head = 0; head < a.heads; head++) {
      uint8_t* row = a.queries + size_t(head) * query_bytes(a);
      const float* q = a.q + size_t(head) * size_t(a.head_dim);
      float* scale = reinterpret_cast<float*>(row + columns(a));
      int32_t* biases = reinterpret_cast<int32_t*>(scale + kv(a).groups());
      I lanes = Lanes::set1_int(0);
      for (int d = 0; d < a.head_dim; d += 16)
        lanes = Lanes::max_int(lanes, magnitudes(Lanes::load_n(q + d, least(16, a.head_dim - d))));
      const float amax = float_of(Lanes::reduce_max_int(lanes));
      *scale = amax / 127.0f;
      for (int g = 0; g < int(kv(a).groups()); g++) {
        F x[2] = {Lanes::set1(0.0f), Lanes::set1(0.0f)};
        load_head(q + g * 32, least(32, a.head_dim - g * 32), x);
        biases[g] = -8 * Lanes::reduce_add_int(store_steps8(x[0], x[1], steps8_by(amax), reinterpret_cast<int8_t*>(row + g * 32)));
      }
    }
  }

  // Scores of T heads, whose queries begin at `q`, with the block of 16 keys from position `start` on.
  template <int T>
  static void score_block(const AttentionArgs& a, const uint8_t* block, const uint8_t* q, int start, float* scores, F* top) {
    const size_t stride = query_bytes(a), groups = kv(a).groups();
    const uint8_t* scales = q + columns(a);
    const uint8_t* biases = scales + groups * 4;
    Sums<T> acc;
    for (size_t g = 0; g < groups; g++, block += P * 256 + 32) {
      const F key_scales = Lanes::load_half(block + P * 256);
      plane_group<P, T>(block, q + g * 32, biases + g * 4, stride, [&](int t, I sum) __attribute__((always_inline)) {
        acc.add(t, Lanes::to_float(sum), key_scales);
      });
    }
    const Lookout look(a, start);
    for (int t = 0; t < T; t++) {
      float scale;
      __builtin_memcpy(&scale, scales + size_t(t) * stride, 4);
      const F score = capped(Lanes::mul(acc.of(t), Lanes::set1(scale)), a.soft_cap);
      Lanes::store(scores + size_t(t) * kStretch, score);
      top[t] = Lanes::max(look.keep(score, top[t]), top[t]);
    }
  }

  // This and what follows are compiled by themselves: together they leave a compiler too few registers.
  template <int T>
  static __attribute__((noinline)) void score(const AttentionArgs& a, int head, const Stretch& stretch, F* top) {
    const uint8_t* q = a.queries + size_t(head) * query_bytes(a);
    for (int page = stretch.first; page < stretch.past; page++) {
      for (int b = 0; b < 2; b++) {
        const size_t at = size_t(b) * kv(a).key_block_bytes();
        ask_ahead(a, head, page, at, at + kv(a).key_block_bytes());
        score_block<T>(a, page_at(a, page) + at, q, page * kPage + b * 16,
                       a.scores + (page - stretch.page) * kPage + b * 16, top);
      }
    }
  }

  // Scores become weights of the pages' values: a quantized row of kStretch columns where the scores of a head were.
  template <int T>
  static __attribute__((noinline)) void weigh(const AttentionArgs& a, int head, const Stretch& stretch) {
    F sum[T], most[T];
    for (int t = 0; t < T; t++) {
      sum[t] = Lanes::load(sums_of(a, head + t));
      most[t] = Lanes::set1(*most_of(a, head + t));
    }
    const F zero = Lanes::set1(0.0f);
    float* at = a.scores;
    for (int page = stretch.page; page < stretch.page + kStretchPages; page++)
      for (int b = 0; b < 2; b++, at += 16) {
        if (!stretch.has(page)) {
          for (int t = 0; t < T; t++) Lanes::store(at + t * kStretch, zero);
          continue;
        }
        const Lookout look(a, page * kPage + b * 16);
        const F scales = Lanes::load_half(page_at(a, page) + kv(a).value_scales_at() + b * 32);
        for (int t = 0; t < T; t++) {
          const F p = softened(look, at + t * kStretch, most[t]);
          sum[t] = Lanes::add(sum[t], p);
          Lanes::store(at + t * kStretch, look.keep(Lanes::mul(p, scales), zero));
        }
      }
    for (int t = 0; t < T; t++) Lanes::store(sums_of(a, head + t), sum[t]);
    quantize_stretch<T>(a.scores);
  }

  // Values of D vectors of channels, from vector `d`, of T heads.
  template <int T, int D>
  static __attribute__((noinline)) void mix_vectors(const AttentionArgs& a, int head, size_t d, const Stretch& stretch) {
    const uint8_t* weights = reinterpret_cast<const uint8_t*>(a.scores) + (stretch.first - stretch.page) * kPage;
    const uint8_t* scales = reinterpret_cast<const uint8_t*>(a.scores) + kStretch + (stretch.first - stretch.page) * 4;
    Sums<D * T> acc;
    const auto channels = [&](int e) { return least(16, a.head_dim - (int(d) + e) * 16); };
    const auto place = [&](int e, int t) { return a.out + size_t(head + t) * size_t(a.head_dim) + (d + size_t(e)) * 16; };
    for (int e = 0; e < D; e++)
      for (int t = 0; t < T; t++) acc.set(e * T + t, Lanes::load_n(place(e, t), channels(e)));
    for (int page = stretch.first; page < stretch.past; page++, weights += kPage, scales += 4) {
      const uint8_t* of_page = page_at(a, page);
      size_t at = kv(a).values_at() + d * P * 256;
      if (d == 0) ask_ahead(a, head, page, kv(a).value_scales_at(), kv(a).bytes());
      for (int e = 0; e < D; e++, at += P * 256) {
        ask_ahead(a, head, page, at, at + P * 256);
        plane_group<P, T>(of_page + at, weights, scales + kStretchPages * 4, kStretch * 4, [&](int t, I sum) __attribute__((always_inline)) {
          float scale;
          __builtin_memcpy(&scale, scales + t * kStretch * 4, 4);
          acc.add(e * T + t, Lanes::to_float(sum), Lanes::set1(scale));
        });
      }
    }
    for (int e = 0; e < D; e++)
      for (int t = 0; t < T; t++) Lanes::store_n(place(e, t), acc.of(e * T + t), channels(e));
  }

  template <int T>
  static void mix(const AttentionArgs& a, int head, const Stretch& stretch) {
    const size_t vectors = size_t(a.head_dim + 15) / 16;
    size_t d = 0;
    for (; d + 4 <= vectors; d += 4) mix_vectors<T, 4>(a, head, d, stretch);
    for (; d < vectors; d++) mix_vectors<T, 1>(a, head, d, stretch);
  }
};

void attention_nibbles(const AttentionArgs* a) {
  if (a->planes == 1)
    attention<Nibbles<1>>(a);
  else
    attention<Nibbles<2>>(a);
}

}  // namespace
}  // namespace potluck
