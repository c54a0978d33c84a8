// The definition of every kernel's result: plain loops in the order of docs/numerics.md. Other files must give the
// same bits.
#include <cmath>
#include <limits>

#include "constants.h"
#include "half.h"
#include "kernels.h"

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

void w4_matmul(const uint8_t* panel, int blocks, const QuantizedRows* x, int tokens, float* out, size_t out_stride) {
  const size_t groups = x->columns / 32;
  for (int b = 0; b < blocks; b++, panel += groups * 288)
    for (int t = 0; t < tokens; t++) {
      const int8_t* q = reinterpret_cast<const int8_t*>(x->base + size_t(t) * x->stride);
      const float* scale = reinterpret_cast<const float*>(q + x->columns);
      for (int row = 0; row < 16; row++) {
        float acc = 0;
        for (size_t g = 0; g < groups; g++) {
          int32_t sum = 0;
          for (int c = 0; c < 4; c++)
            for (int j = 0; j < 4; j++) {
              const uint8_t byte = panel[g * 288 + size_t(c * 64 + row * 4 + j)];
              const int8_t* at = q + g * 32 + c * 8 + j;
              sum += ((byte & 15) - 8) * at[0] + ((byte >> 4) - 8) * at[4];
            }
          uint16_t weight_scale;
          memcpy(&weight_scale, panel + g * 288 + 256 + size_t(row) * 2, 2);
          acc = std::fma(float(sum), from_half(weight_scale) * scale[g], acc);
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

void quantize(const float* x, int groups, int8_t* q, float* scale, int32_t* bias) {
  for (int g = 0; g < groups; g++, x += 32, q += 32) {
    // As integers, so that a NaN is the largest and reaches the scale.
    uint32_t most = 0;
    for (int i = 0; i < 32; i++) {
      const uint32_t magnitude = float_bits(x[i]) & 0x7fffffff;
      if (magnitude > most) most = magnitude;
    }
    const float amax = bits_float(most);
    scale[g] = amax / 127.0f;
    const float inverse = amax < kQuantizeLeast ? 0.0f : 127.0f / amax;
    int32_t sum = 0;
    for (int i = 0; i < 32; i++) {
      float v = std::rint(x[i] * inverse);
      v = v > -127.0f ? v : -127.0f;  // also for a NaN
      v = v < 127.0f ? v : 127.0f;
      q[i] = int8_t(v);
      sum += q[i];
    }
    bias[g] = -8 * sum;
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

void to_half(const float* x, int n, uint16_t* y) {
  for (int i = 0; i < n; i++) y[i] = to_half_bits(x[i]);
}

// Kv is how keys and values are stored: a half or a float.
float load_kv(const uint8_t* at, uint16_t) {
  uint16_t half;
  memcpy(&half, at, 2);
  return from_half(half);
}
float load_kv(const uint8_t* at, float) {
  float value;
  memcpy(&value, at, 4);
  return value;
}

template <class Kv>
void attention(const AttentionArgs* a) {
  const size_t dim = size_t(a->head_dim);
  for (int h = 0; h < a->heads; h++) {
    const float* q = a->q + size_t(h) * dim;
    float* out = a->out + size_t(h) * dim;
    float most = -std::numeric_limits<float>::infinity();
    for (int t = a->first; t < a->positions; t++) {
      const uint8_t* page = a->kv + size_t(a->pages[t / 16]) * a->page_bytes;
      float acc = 0;
      for (size_t d = 0; d < dim; d++) {
        acc = std::fma(q[d], load_kv(page + (d * 16 + size_t(t % 16)) * sizeof(Kv), Kv{}), acc);
      }
      if (a->soft_cap > 0) soft_cap(&acc, 1, a->soft_cap);
      a->scores[t] = acc;
      most = acc > most ? acc : most;
    }
    float s[16] = {};
    for (int t = a->first; t < a->positions; t++) {
      a->scores[t] = exp_one(a->scores[t] - most);
      s[t % 16] += a->scores[t];
    }
    const float sum = fold(s);
    for (size_t d = 0; d < dim; d++) {
      float acc = 0;
      for (int t = a->first; t < a->positions; t++) {
        const uint8_t* values = a->kv + size_t(a->pages[t / 16]) * a->page_bytes + dim * 16 * sizeof(Kv);
        acc = std::fma(a->scores[t], load_kv(values + (size_t(t % 16) * dim + d) * sizeof(Kv), Kv{}), acc);
      }
      out[d] = acc / sum;
    }
  }
}

}  // namespace

const Kernels kReferenceKernels = {
    "reference", w4_matmul, bf16_matmul, quantize,     rmsnorm, rope,
    exp_many,    silu_mul,  gelu_mul,    soft_cap,     add_fixed, add_residual, to_half,
    attention<uint16_t>, attention<float>,
};

}  // namespace potluck
