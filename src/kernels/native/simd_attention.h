// Attention of one token over pages of keys and values, over the lanes of simd_kernels.h and w4_group (simd_matmul.h).
#pragma once
#include "nibble_kv.h"
#include "simd_kernels.h"

namespace potluck {
namespace {

// --- what all stores share ---

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

// The largest of the scores of one head that are looked at; a NaN is passed over.
inline float largest_score(const AttentionArgs& a, const float* scores) {
  const F lowest = Lanes::set1(-__builtin_inff());
  F most = lowest;
  const int start = a.first_page() * kPage, count = int(a.score_stride());
  for (int t = 0; t < count; t += 16)
    most = Lanes::max(Lookout(a, start + t).keep(Lanes::load(scores + t), lowest), most);
  return largest_lane(most);
}

// exp(score - most) of 16 positions from `start`, zero where none is looked at.
inline F softened(const AttentionArgs& a, const float* scores, F most, int start) {
  return Lookout(a, start).keep(exp_lanes(Lanes::sub(Lanes::load(scores), most)), Lanes::set1(0.0f));
}

template <class Store>
void attention(const AttentionArgs* a) {
  int head = 0;
  for (; head + 4 <= a->heads; head += 4) Store::template attend<4>(*a, head);
  const int rest = a->heads - head;
  if (rest == 3) Store::template attend<3>(*a, head);
  if (rest == 2) Store::template attend<2>(*a, head);
  if (rest == 1) Store::template attend<1>(*a, head);
}

// --- nibbles ---

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
  const float square = fold(squares);
  return square > 0 ? fold(products) / square : scale;
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
    const float error = fold(s);
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

// Pages are asked of memory this far ahead of the turn of their keys.
constexpr int kPagesAhead = 4;

// Into the second level cache, where values stay until their turn: the first has no room for so much on its way.
inline void ask_for(const uint8_t* from, size_t bytes) {
  for (size_t line = 0; line < bytes; line += 64) __builtin_prefetch(from + line, 0, 2);
}

// Asks for a part of a page of the next call while this one computes with what is here already: once for all heads, and no
// more than leaves this call's own pages in the second level cache.
constexpr int kNextPages = 256;
inline void ask_for_next(const AttentionArgs& a, int head, int page, size_t from, size_t past) {
  if (a.next == nullptr || head != 0 || page - a.first_page() >= kNextPages) return;
  const uint8_t* at = a.next + size_t(a.pages[page]) * a.page_bytes;
  ask_for(at + from, past - from);
}

// Weights of the values of one page of one head, in place of its 32 scores: int8 [32], float scale, int32 bias.
constexpr size_t kWeightScaleAt = 32, kWeightBiasAt = 36;

template <int P>
struct Nibbles {
  // Queries [T] as rows of QuantizedRows in a.queries; returns from row to row.
  template <int T>
  static size_t quantize_queries(const AttentionArgs& a, const NibbleKv& kv, int head) {
    const size_t columns = kv.groups() * 32, stride = quantized_row_bytes(columns);
    for (int t = 0; t < T; t++) {
      uint8_t* row = a.queries + size_t(t) * stride;
      const float* q = a.q + size_t(head + t) * size_t(a.head_dim);
      float* scale = reinterpret_cast<float*>(row + columns);
      int32_t* biases = reinterpret_cast<int32_t*>(scale + kv.groups());
      I lanes = Lanes::set1_int(0);
      for (int d = 0; d < a.head_dim; d += 16)
        lanes = Lanes::max_int(lanes, magnitudes(Lanes::load_n(q + d, least(16, a.head_dim - d))));
      const float amax = float_of(Lanes::reduce_max_int(lanes));
      *scale = amax / 127.0f;
      for (int g = 0; g < int(kv.groups()); g++) {
        F x[2] = {Lanes::set1(0.0f), Lanes::set1(0.0f)};
        load_head(q + g * 32, least(32, a.head_dim - g * 32), x);
        biases[g] = -8 * Lanes::reduce_add_int(store_steps8(x[0], x[1], steps8_by(amax), reinterpret_cast<int8_t*>(row + g * 32)));
      }
    }
    return stride;
  }

  // Scores of T heads with the block of 16 keys from position `start` on; the largest that are looked at go to `most`: [T].
  template <int T>
  static void score_block(const AttentionArgs& a, const NibbleKv& kv, const uint8_t* block, size_t stride, int start,
                          float* scores, F* most) {
    const size_t columns = kv.groups() * 32;
    const uint8_t* scales = a.queries + columns;
    const uint8_t* biases = scales + kv.groups() * 4;
    F acc[T];
    for (int t = 0; t < T; t++) acc[t] = Lanes::set1(0.0f);
    for (size_t g = 0; g < kv.groups(); g++, block += P * 256 + 32) {
      const F key_scales = Lanes::load_half(block + P * 256);
      plane_group<P, T>(block, a.queries + g * 32, biases + g * 4, stride, [&](int t, I sum) __attribute__((always_inline)) {
        acc[t] = Lanes::fma(Lanes::to_float(sum), key_scales, acc[t]);
      });
    }
    const Lookout look(a, start);
    for (int t = 0; t < T; t++) {
      float scale;
      __builtin_memcpy(&scale, scales + size_t(t) * stride, 4);
      const F score = capped(Lanes::mul(acc[t], Lanes::set1(scale)), a.soft_cap);
      Lanes::store(scores + size_t(t) * a.score_stride(), score);
      most[t] = Lanes::max(look.keep(score, most[t]), most[t]);
    }
  }

  // Scores of one head, at most `top`, become the weights of the pages' values; returns the sum of exp. Asks for the bytes
  // from `ask` to `past` of each page of the next call.
  static float weigh(const AttentionArgs& a, const NibbleKv& kv, int head, float top, float* scores, size_t ask,
                     size_t past) {
    const F most = Lanes::set1(top), zero = Lanes::set1(0.0f);
    F sum = zero;
    float* at = scores;
    for (int page = a.first_page(); page < a.past_page(); page++, at += kPage) {
      ask_for_next(a, head, page, ask, past);
      const uint8_t* scales = page_at(a, page) + kv.value_scales_at();
      for (int b = 0; b < 2; b++) {
        const int start = page * kPage + b * 16;
        const F p = softened(a, at + b * 16, most, start);
        sum = Lanes::add(sum, p);
        Lanes::store(at + b * 16, Lookout(a, start).keep(Lanes::mul(p, Lanes::load_half(scales + b * 32)), zero));
      }
    }
    // A loop of its own: one that did both would be so long that a processor had few pages in flight.
    uint8_t* to = reinterpret_cast<uint8_t*>(scores);
    quantize8_groups(scores, size_t(at - scores) / kPage, {to, to + kWeightScaleAt, to + kWeightBiasAt, kPage * 4, kPage * 4});
    return fold(sum);
  }

  // Values of D vectors of channels, from vector `d`, of T heads.
  template <int T, int D>
  static void mix(const AttentionArgs& a, const NibbleKv& kv, int head, size_t d, const float* sums) {
    const size_t stride = a.score_stride() * 4;
    const uint8_t* weights = reinterpret_cast<const uint8_t*>(a.scores);
    F acc[D][T];
    for (int e = 0; e < D; e++)
      for (int t = 0; t < T; t++) acc[e][t] = Lanes::set1(0.0f);
    for (int page = a.first_page(); page < a.past_page(); page++, weights += kPage * 4) {
      if (d == 0) ask_for_next(a, head, page, kv.values_at(), kv.bytes());
      const uint8_t* planes = page_at(a, page) + kv.values_at() + d * P * 256;
      for (int e = 0; e < D; e++, planes += P * 256)
        plane_group<P, T>(planes, weights, weights + kWeightBiasAt, stride, [&](int t, I sum) __attribute__((always_inline)) {
          float scale;
          __builtin_memcpy(&scale, weights + size_t(t) * stride + kWeightScaleAt, 4);
          acc[e][t] = Lanes::fma(Lanes::to_float(sum), Lanes::set1(scale), acc[e][t]);
        });
    }
    for (int t = 0; t < T; t++)
      for (int e = 0; e < D; e++) {
        const int channel = int(d + size_t(e)) * 16;
        Lanes::store_n(a.out + size_t(head + t) * size_t(a.head_dim) + channel,
                       Lanes::div(acc[e][t], Lanes::set1(sums[t])), least(16, a.head_dim - channel));
      }
  }

  template <int T>
  static void attend(const AttentionArgs& a, int head) {
    const NibbleKv kv{a.head_dim, P};
    const size_t stride = quantize_queries<T>(a, kv, head);
    F most[T];
    for (int t = 0; t < T; t++) most[t] = Lanes::set1(-__builtin_inff());
    for (int page = a.first_page(); page < a.past_page(); page++) {
      if (page + kPagesAhead < a.past_page()) ask_for(page_at(a, page + kPagesAhead), kv.bytes());
      for (int b = 0; b < 2; b++)
        score_block<T>(a, kv, page_at(a, page) + size_t(b) * kv.key_block_bytes(), stride,
                       page * kPage + b * 16, a.scores + (page - a.first_page()) * kPage + b * 16, most);
    }
    float sums[T];
    const size_t keys = kv.values_at();
    for (size_t t = 0; t < T; t++)
      sums[t] = weigh(a, kv, head, largest_lane(most[t]), a.scores + t * a.score_stride(), keys * t / T, keys * (t + 1) / T);
    const size_t vectors = size_t(a.head_dim + 15) / 16;
    size_t d = 0;
    for (; d + 4 <= vectors; d += 4) mix<T, 4>(a, kv, head, d, sums);
    for (; d < vectors; d++) mix<T, 1>(a, kv, head, d, sums);
  }
};

void attention_nibbles(const AttentionArgs* a) {
  if (a->planes == 1)
    attention<Nibbles<1>>(a);
  else
    attention<Nibbles<2>>(a);
}

// --- halves and floats ---

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
  // Scores of T heads with both blocks of a page.
  template <int T>
  static void score_page(const AttentionArgs& a, int head, const uint8_t* keys, float* scores) {
    const size_t dim = size_t(a.head_dim), block = dim * kKeyBlock * Kv::bytes;
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
    for (int t = 0; t < T; t++)
      for (int b = 0; b < 2; b++)
        Lanes::store(scores + size_t(t) * a.score_stride() + size_t(b) * 16, capped(acc[t][b], a.soft_cap));
  }

  // Scores of one head become exp(score - max); returns their sum.
  static float weigh(const AttentionArgs& a, float* scores) {
    const F most = Lanes::set1(largest_score(a, scores));
    F sum = Lanes::set1(0.0f);
    const int start = a.first_page() * kPage, count = int(a.score_stride());
    for (int t = 0; t < count; t += 16) {
      const F p = softened(a, scores + t, most, start + t);
      Lanes::store(scores + t, p);
      sum = Lanes::add(sum, p);
    }
    return fold(sum);
  }

  // Values of D vectors of channels (from channel `d`) for T heads.
  template <int T, int D>
  static void mix(const AttentionArgs& a, int head, size_t d, const float* sums) {
    const size_t dim = size_t(a.head_dim), stride = a.score_stride();
    F acc[T][D];
    for (int t = 0; t < T; t++)
      for (int e = 0; e < D; e++) acc[t][e] = Lanes::set1(0.0f);
    for (int page = a.first_page(); page < a.past_page(); page++) {
      const uint8_t* values = page_at(a, page) + (dim * kPage + d) * Kv::bytes;
      const int start = page * kPage, from = a.first > start ? a.first - start : 0;
      const int to = least(kPage, a.positions - start);
      for (int j = from; j < to; j++) {
        F v[D];
        for (int e = 0; e < D; e++) v[e] = Kv::load(values + (size_t(j) * dim + size_t(e) * 16) * Kv::bytes);
        for (int t = 0; t < T; t++) {
          const F p = Lanes::set1(a.scores[size_t(t) * stride + size_t(start - a.first_page() * kPage + j)]);
          for (int e = 0; e < D; e++) acc[t][e] = Lanes::fma(p, v[e], acc[t][e]);
        }
      }
    }
    for (int t = 0; t < T; t++)
      for (int e = 0; e < D; e++) {
        const size_t channel = d + size_t(e) * 16;
        Lanes::store_n(a.out + size_t(head + t) * dim + channel, Lanes::div(acc[t][e], Lanes::set1(sums[t])),
                       least(16, int(dim - channel)));
      }
  }

  template <int T>
  static void attend(const AttentionArgs& a, int head) {
    constexpr int D = Lanes::kRegisters >= 32 ? 4 : T <= 2 ? 2 : 1;
    for (int page = a.first_page(); page < a.past_page(); page++)
      score_page<T>(a, head, page_at(a, page), a.scores + (page - a.first_page()) * kPage);
    float sums[T];
    for (int t = 0; t < T; t++) sums[t] = weigh(a, a.scores + size_t(t) * a.score_stride());
    const size_t dim = size_t(a.head_dim);
    size_t d = 0;
    for (; d + D * 16 <= dim; d += D * 16) mix<T, D>(a, head, d, sums);
    for (; d < dim; d += 16) mix<T, 1>(a, head, d, sums);
  }
};

}  // namespace
}  // namespace potluck

// What follows the name in a Kernels.
#define POTLUCK_SIMD_KERNELS                                                                                          \
  w4_matmul, bf16_matmul, quantize8, quantize4, hadamard, rmsnorm, rope, exp_many, silu_mul, gelu_mul, soft_cap,     \
      add_fixed, add_residual, store_key, store_value, attention_nibbles, attention<Channels<HalfKv>>, attention<Channels<FloatKv>>
