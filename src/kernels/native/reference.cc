// The definition of every kernel's result: plain loops in the order of docs/numerics.md. Other files must give the
// same bits.
#include <algorithm>
#include <cmath>
#include <limits>

#include "constants.h"
#include "half.h"
#include "kernels.h"
#include "nibble_kv.h"

namespace potluck {
namespace {

float exp_one(float x) {
  if (x < kExpLow) return 0.0f;
  if (x != x) return x;
  if (x > kExpHigh) x = kExpHigh;
  const float n = std::rint(x * kLog2e);
  float r = std::fma(n, -kLn2High, x);
  r = std::fma(n, -kLn2Low, r);
  float y = kExp6;
  y = std::fma(y, r, kExp5);
  y = std::fma(y, r, kExp4);
  y = std::fma(y, r, kExp3);
  y = std::fma(y, r, kExp2);
  y = std::fma(y, r, 1.0f);
  y = std::fma(y, r, 1.0f);
  return y * bits_float(uint32_t(int32_t(n) + 127) << 23);
}

// s: 16 lanes.
float fold(float* s) {
  for (int half = 8; half >= 1; half /= 2)
    for (int l = 0; l < half; l++) s[l] += s[l + half];
  return s[0];
}

// One row's 32 products (nibble - 8) * q.
int32_t group_sum(const uint8_t* nibbles, int row, const int8_t* q) {
  int32_t sum = 0;
  for (int c = 0; c < 4; c++)
    for (int j = 0; j < 4; j++) {
      const uint8_t byte = nibbles[c * 64 + row * 4 + j];
      const int8_t* at = q + c * 8 + j;
      sum += ((byte & 15) - 8) * at[0] + ((byte >> 4) - 8) * at[4];
    }
  return sum;
}

void w4_matmul(const uint8_t* panel, int blocks, const QuantizedRows* x, int tokens, float* out, size_t out_stride) {
  const size_t groups = x->columns / 32;
  for (int b = 0; b < blocks; b++, panel += groups * 288)
    for (int t = 0; t < tokens; t++) {
      const int8_t* q = reinterpret_cast<const int8_t*>(x->base + size_t(t) * x->stride);
      const float* scale = reinterpret_cast<const float*>(q + x->columns);
      for (int row = 0; row < 16; row++) {
        float acc = 0;
        for (size_t first = 0; first < groups; first += kBlockGroups) {
          const bool four_bits = x->a4[first / kBlockGroups] != 0;
          float block = 0;
          for (size_t g = first; g < groups && g < first + kBlockGroups; g++) {
            const float sum = float(group_sum(panel + g * 288, row, q + g * 32));
            uint16_t weight_scale;
            memcpy(&weight_scale, panel + g * 288 + 256 + size_t(row) * 2, 2);
            if (four_bits)
              acc = std::fma(sum, from_half(weight_scale) * scale[g], acc);
            else
              block = std::fma(sum, from_half(weight_scale), block);
          }
          if (!four_bits) acc = std::fma(block, scale[first], acc);
        }
        out[size_t(t) * out_stride + size_t(b * 16 + row)] = acc;
      }
    }
}

void bf16_matmul(const uint8_t* panel, int blocks, int columns, const float* x, size_t x_stride, int tokens, float* out,
                 size_t out_stride) {
  for (int b = 0; b < blocks; b++, panel += size_t(columns) * 32)
    for (int t = 0; t < tokens; t++)
      for (int row = 0; row < 16; row++) {
        float acc = 0;
        for (int k = 0; k < columns; k++) {
          uint16_t w;
          memcpy(&w, panel + size_t(k) * 32 + size_t(row) * 2, 2);
          acc = std::fma(from_bf16(w), x[size_t(t) * x_stride + size_t(k)], acc);
        }
        out[size_t(t) * out_stride + size_t(b * 16 + row)] = acc;
      }
}

// Of `n` values, as integers, so that a NaN is the largest and reaches the scale.
float largest(const float* x, int n) {
  uint32_t most = 0;
  for (int i = 0; i < n; i++) {
    const uint32_t magnitude = float_bits(x[i]) & 0x7fffffff;
    if (magnitude > most) most = magnitude;
  }
  return bits_float(most);
}

// rint(x) in low .. high; low for a NaN.
float step(float x, float low, float high) {
  float v = std::rint(x);
  v = v > low ? v : low;
  return v < high ? v : high;
}

// Groups of 32 with one scale, which is written for each.
void quantize8_block(const float* x, int groups, int8_t* q, float* scale, int32_t* bias) {
  const float amax = largest(x, groups * 32);
  const float inverse = amax < kQuantizeLeast ? 0.0f : 127.0f / amax;
  for (int g = 0; g < groups; g++, x += 32, q += 32) {
    scale[g] = amax / 127.0f;
    int32_t sum = 0;
    for (int i = 0; i < 32; i++) sum += q[i] = int8_t(step(x[i] * inverse, -127.0f, 127.0f));
    bias[g] = -8 * sum;
  }
}

void quantize8(const float* x, int groups, int8_t* q, float* scale, int32_t* bias) {
  for (int g = 0; g < groups; g += kBlockGroups)
    quantize8_block(x + g * 32, std::min(kBlockGroups, groups - g), q + g * 32, scale + g, bias + g);
}

// Of -amax and amax the one that is among the n values; amax where both are.
float extreme(const float* x, int n, float amax) {
  for (int i = 0; i < n; i++)
    if (x[i] == amax) return amax;
  return -amax;
}

void quantize4(const float* x, int groups, int8_t* q, float* scale, int32_t* bias) {
  for (int g = 0; g < groups; g++, x += 32, q += 32) {
    const float amax = largest(x, 32), far = extreme(x, 32, amax);
    const float inverse = amax < kQuantizeLeast ? 0.0f : -8.0f / far;
    int32_t sum = 0;
    float products[16] = {}, squares[16] = {};
    for (int i = 0; i < 32; i++) {
      const float v = step(x[i] * inverse, -8.0f, 7.0f);
      sum += q[i] = int8_t(v);
      products[i % 16] = std::fma(x[i], v, products[i % 16]);
      squares[i % 16] = std::fma(v, v, squares[i % 16]);
    }
    const float fit = fold(products) / fold(squares);
    scale[g] = std::fabs(fit) <= amax ? fit : far / -8.0f;  // all zero, or beyond what floats hold
    bias[g] = -8 * sum;
  }
}

void hadamard(float* x, int groups) {
  for (int g = 0; g < groups; g++, x += 32)
    for (int half = 1; half < 32; half *= 2)
      for (int i = 0; i < 32; i++) {
        if (i & half) continue;
        const float a = x[i], b = x[i + half];
        x[i] = a + b;
        x[i + half] = a - b;
      }
}

void rmsnorm(const float* x, const float* weight, int n, float epsilon, float* y) {
  float s[16] = {};
  for (int i = 0; i < n; i++) s[i % 16] = std::fma(x[i], x[i], s[i % 16]);
  const float r = 1.0f / std::sqrt(fold(s) / float(n) + epsilon);
  for (int i = 0; i < n; i++) y[i] = (x[i] * r) * weight[i];
  for (int i = n; i % 32 != 0; i++) y[i] = 0;
}

void rope(float* x, const float* c, const float* s, int half, float scale) {
  for (int i = 0; i < half; i++) {
    const float a = x[i], b = x[i + half];
    x[i] = (a * c[i] - b * s[i]) * scale;
    x[i + half] = (b * c[i] + a * s[i]) * scale;
  }
}

void exp_many(const float* x, int n, float* y) {
  for (int i = 0; i < n; i++) y[i] = exp_one(x[i]);
}

void silu_mul(const float* gate, const float* up, int n, float* h) {
  for (int i = 0; i < n; i++) h[i] = gate[i] / (1.0f + exp_one(-gate[i])) * up[i];
}

void gelu_mul(const float* gate, const float* up, int n, float* h) {
  for (int i = 0; i < n; i++) {
    const float g = gate[i], z = g * std::fma(g * g, kGelu3, kGelu1);
    h[i] = g / (1.0f + exp_one(-z)) * up[i];
  }
}

void soft_cap(float* x, int n, float cap) {
  const float inverse = 2.0f / cap;
  for (int i = 0; i < n; i++) x[i] = cap * (1.0f - 2.0f / (exp_one(x[i] * inverse) + 1.0f));
}

int64_t add_fixed(const float* v, const float* scale, int n, float limit, int32_t* partial) {
  int64_t saturated = 0;
  for (int i = 0; i < n; i++) {
    float r = v[i] * scale[i];
    if (!(r >= -limit && r <= limit)) {
      saturated++;
      r = r != r ? 0.0f : r > 0 ? limit : -limit;
    }
    partial[i] = int32_t(uint32_t(partial[i]) + uint32_t(int32_t(std::rint(r))));
  }
  return saturated;
}

void add_residual(float* residual, const int32_t* partial, const float* inverse, int n) {
  for (int i = 0; i < n; i++) residual[i] = residual[i] + float(partial[i]) * inverse[i];
}

// --- keys and values in nibbles ---

// The scale with the least squared error for the steps that `scale` gives; `scale` where all steps are 0.
float fitted(const float* x, int n, float scale, float low, float high) {
  const float inverse = scale == 0 ? 0.0f : 1.0f / scale;
  float products[16] = {}, squares[16] = {};
  for (int i = 0; i < n; i++) {
    const float v = step(x[i] * inverse, low, high);
    products[i % 16] = std::fma(x[i], v, products[i % 16]);
    squares[i % 16] = std::fma(v, v, squares[i % 16]);
  }
  const float square = fold(squares);
  return square > 0 ? fold(products) / square : scale;
}

// The steps of n values (padded with zeros to 16) and the bits of their scale, an IEEE half: NaN where there is none.
// levels: 8 for 4 bits, 128 for 8.
uint16_t quantize_kv(const float* x, int n, int levels, int* steps) {
  const float low = -float(levels), high = float(levels - 1);
  const float amax = largest(x, n), far = extreme(x, n, amax);
  uint16_t best = 0x7e00;
  float least = std::numeric_limits<float>::infinity();
  for (int c = 0; c < (levels == 8 ? kKvCandidates : 1) && amax < kKvMost; c++) {
    const float first = far / -(levels == 8 ? kKvTargets4[c] : kKvTarget8);
    const uint16_t half = to_half_bits(levels == 8 ? fitted(x, n, first, low, high) : first);
    const float scale = from_half(half), inverse = scale == 0 ? 0.0f : 1.0f / scale;
    float s[16] = {};
    for (int i = 0; i < n; i++) {
      const float rest = std::fma(step(x[i] * inverse, low, high), -scale, x[i]);
      s[i % 16] = std::fma(rest, rest, s[i % 16]);
    }
    const float error = fold(s);
    if (error < least) {
      least = error;
      best = half;
    }
  }
  const float scale = from_half(best), inverse = scale == 0 ? 0.0f : 1.0f / scale;
  for (int i = 0; i < n; i++) steps[i] = int(step(x[i] * inverse, low, high));
  return best;
}

void store_key(const NibbleKv* kv, const float* key, int at, uint8_t* page) {
  uint8_t* block = page + size_t(at / kKeyBlock) * kv->key_block_bytes();
  for (int g = 0; g < int(kv->groups()); g++, block += kv->group_bytes()) {
    float x[32] = {};
    int steps[32];
    for (int i = 0; i < 32 && g * 32 + i < kv->head_dim; i++) x[i] = key[g * 32 + i];
    const uint16_t scale = quantize_kv(x, 32, levels_of(*kv), steps);
    memcpy(block + kv->plane_bytes() + at % kKeyBlock * 2, &scale, 2);
    for (int i = 0; i < 32; i++) put_step(*kv, block, at % kKeyBlock, i, steps[i]);
  }
}

void store_value(const NibbleKv* kv, const float* value, int at, uint8_t* page) {
  int steps[1024];
  const uint16_t scale = quantize_kv(value, kv->head_dim, levels_of(*kv), steps);
  memcpy(page + kv->value_scales_at() + size_t(at) * 2, &scale, 2);
  for (int d = 0; d < kv->head_dim; d++)
    put_step(*kv, page + kv->values_at() + size_t(d / 16) * kv->plane_bytes(), d % 16, at, steps[d]);
}

int nibble_at(const uint8_t* plane, int row, int column) {
  const uint8_t byte = plane[column / 8 * 64 + row * 4 + column % 4];
  return column % 8 < 4 ? byte & 15 : byte >> 4;
}

// Sum over the 32 columns of a row of planes, step times q.
int32_t dot_planes(const uint8_t* planes, int count, int row, const int8_t* q) {
  int32_t sum = 0;
  for (int c = 0; c < 32; c++) {
    const int step = count == 1 ? nibble_at(planes, row, c) - 8
                                : nibble_at(planes, row, c) * 16 + nibble_at(planes + 256, row, c) - 128;
    sum += step * q[c];
  }
  return sum;
}

float half_at(const uint8_t* at) {
  uint16_t half;
  memcpy(&half, at, 2);
  return from_half(half);
}

// What a head has so far, while it goes from stretch to stretch.
struct Running {
  float most = -std::numeric_limits<float>::infinity();
  float sums[16] = {};
  float out[1024] = {};

  // scores: [n], of the positions from `start` on, become exp(score - most), where `most` is their largest or one before it.
  void soften(float* scores, int start, int n, int dim) {
    float top = most;
    for (int i = 0; i < n; i++) top = scores[i] > top ? scores[i] : top;
    if (top > most) {
      const float by = exp_one(most - top);
      for (float& s : sums) s *= by;
      for (int d = 0; d < dim; d++) out[d] *= by;
      most = top;
    }
    for (int i = 0; i < n; i++) {
      scores[i] = exp_one(scores[i] - most);
      sums[(start + i) % 16] += scores[i];
    }
  }
  void finish(float* to, int dim) {
    const float sum = fold(sums);
    for (int d = 0; d < dim; d++) to[d] = out[d] / sum;
  }
};

// call(start, past) for each stretch of the positions that are looked at.
template <class Call>
void by_stretch(const AttentionArgs& a, const Call& call) {
  for (int start = a.first, past; start < a.positions; start = past) {
    past = std::min((start / kStretch + 1) * kStretch, a.positions);
    call(start, past);
  }
}

// One scale for a whole query: [groups * 32].
void quantize_query(const float* x, int groups, int8_t* q, float* scale) {
  float scales[32];
  int32_t biases[32];
  quantize8_block(x, groups, q, scales, biases);
  *scale = scales[0];
}

float nibble_score(const AttentionArgs& a, const NibbleKv& kv, const int8_t* q, float q_scale, int t) {
  const uint8_t* block = page_at(a, t / kPage) + size_t(t % kPage / kKeyBlock) * kv.key_block_bytes();
  const int row = t % kKeyBlock;
  float acc = 0;
  for (int g = 0; g < int(kv.groups()); g++, block += kv.group_bytes()) {
    const float scale = half_at(block + kv.plane_bytes() + row * 2);
    acc = std::fma(float(dot_planes(block, a.planes, row, q + g * 32)), scale, acc);
  }
  acc *= q_scale;
  if (a.soft_cap > 0) soft_cap(&acc, 1, a.soft_cap);
  return acc;
}

// Adds the values of the page of the positions from `start` on; p: [32].
void mix_nibbles(const AttentionArgs& a, const NibbleKv& kv, int start, const float* p, float* out) {
  const uint8_t* page = page_at(a, start / kPage);
  float weight[32] = {}, weight_scale;
  int8_t w[32];
  int32_t weight_bias;
  for (int i = 0; i < kPage; i++)
    if (start + i >= a.first && start + i < a.positions) weight[i] = p[i] * half_at(page + kv.value_scales_at() + i * 2);
  quantize8_block(weight, 1, w, &weight_scale, &weight_bias);
  for (int d = 0; d < a.head_dim; d++) {
    const uint8_t* planes = page + kv.values_at() + size_t(d / 16) * kv.plane_bytes();
    out[d] = std::fma(float(dot_planes(planes, a.planes, d % 16, w)), weight_scale, out[d]);
  }
}

void attention_nibbles(const AttentionArgs* a) {
  const NibbleKv kv{a->head_dim, a->planes};
  for (int h = 0; h < a->heads; h++) {
    int8_t q[1024];
    float q_scale, x[1024] = {};
    for (int d = 0; d < a->head_dim; d++) x[d] = a->q[h * a->head_dim + d];
    quantize_query(x, int(kv.groups()), q, &q_scale);
    Running running;
    by_stretch(*a, [&](int start, int past) {
      float p[kStretch + kPage] = {};
      const int first = start / kPage * kPage;
      for (int t = start; t < past; t++) p[t - first] = nibble_score(*a, kv, q, q_scale, t);
      running.soften(p + (start - first), start, past - start, a->head_dim);
      for (int t = first; t < past; t += kPage) mix_nibbles(*a, kv, t, p + (t - first), running.out);
    });
    running.finish(a->out + h * a->head_dim, a->head_dim);
  }
}

// --- keys and values as halves or floats ---

float load_kv(const uint8_t* at, uint16_t) { return half_at(at); }
float load_kv(const uint8_t* at, float) {
  float value;
  memcpy(&value, at, 4);
  return value;
}

// A page is the keys of 2 blocks, [head_dim, 16 positions] each, and the values, [32 positions, head_dim].
template <class Kv>
float channel_score(const AttentionArgs& a, const float* q, int t) {
  const size_t dim = size_t(a.head_dim), block = size_t(t % kPage / kKeyBlock) * dim * kKeyBlock;
  const uint8_t* page = page_at(a, t / kPage);
  float acc = 0;
  for (size_t d = 0; d < dim; d++)
    acc = std::fma(q[d], load_kv(page + (block + d * kKeyBlock + size_t(t % kKeyBlock)) * sizeof(Kv), Kv{}), acc);
  if (a.soft_cap > 0) soft_cap(&acc, 1, a.soft_cap);
  return acc;
}

template <class Kv>
void attention(const AttentionArgs* a) {
  const size_t dim = size_t(a->head_dim);
  for (int h = 0; h < a->heads; h++) {
    Running running;
    by_stretch(*a, [&](int start, int past) {
      float p[kStretch];
      for (int t = start; t < past; t++) p[t - start] = channel_score<Kv>(*a, a->q + size_t(h) * dim, t);
      running.soften(p, start, past - start, a->head_dim);
      for (int t = start; t < past; t++) {
        const uint8_t* value = page_at(*a, t / kPage) + (kPage + size_t(t % kPage)) * dim * sizeof(Kv);
        for (size_t d = 0; d < dim; d++)
          running.out[d] = std::fma(p[t - start], load_kv(value + d * sizeof(Kv), Kv{}), running.out[d]);
      }
    });
    running.finish(a->out + size_t(h) * dim, a->head_dim);
  }
}

}  // namespace

const Kernels kReferenceKernels = {
    "reference",
    w4_matmul, bf16_matmul, quantize8, quantize4, hadamard, rmsnorm, rope, exp_many, silu_mul, gelu_mul, soft_cap,
    add_fixed, add_residual, store_key, store_value, attention_nibbles, attention<uint16_t>, attention<float>,
};

}  // namespace potluck
