#include "thread_run.h"

#include <algorithm>
#include <cmath>

namespace potluck {

static const float* vector_at(const PlacedTile& tile, int64_t offset) {
  return reinterpret_cast<const float*>(tile.at + offset);
}

static void add(float* x, const float* bias, int64_t n) {
  for (int64_t i = 0; i < n; i++) x[i] += bias[i];
}

void ThreadRun::add_biases(const Step& step, int64_t i, int64_t token) {
  if (!m_.shape.query_key_value_bias) return;
  const size_t row = size_t(i * m_.limits.max_tokens + token);
  const PlacedTile& t = tile(step, i);
  add(m_.q + row * m_.q_stride, vector_at(t, m_.attention_vectors.query_bias), m_.shape.tile_query_width());
  add(m_.k + row * m_.kv_stride, vector_at(t, m_.attention_vectors.key_bias), m_.shape.head_dim);
  add(m_.v + row * m_.kv_stride, vector_at(t, m_.attention_vectors.value_bias), m_.shape.head_dim);
}

void ThreadRun::norm_heads(const Step& step, int64_t i, int64_t token) {
  const size_t row = size_t(i * m_.limits.max_tokens + token);
  const int64_t dim = m_.shape.head_dim, heads = m_.shape.tile_query_heads();
  const float* query_weight = vector_at(tile(step, i), m_.attention_vectors.query_norm);
  const float* key_weight = vector_at(tile(step, i), m_.attention_vectors.key_norm);
  float* q = m_.q + row * m_.q_stride;
  float* k = m_.k + row * m_.kv_stride;
  if (m_.shape.query_key_norm == QueryKeyNorm::head) {
    // By way of scratch: the kernel clears what is behind a head up to the next 32.
    auto norm = [&](float* x, const float* weight) {
      kernels_.rmsnorm(x, weight, int(dim), m_.shape.norm_epsilon, mine_.head);
      std::copy(mine_.head, mine_.head + dim, x);
    };
    for (int64_t h = 0; h < heads; h++) norm(q + h * dim, query_weight);
    norm(k, key_weight);
    return;
  }
  const float* factors = m_.square_factors + token * 2;
  for (int64_t d = 0; d < heads * dim; d++) q[d] = (q[d] * factors[0]) * query_weight[d];
  for (int64_t d = 0; d < dim; d++) k[d] = (k[d] * factors[1]) * key_weight[d];
}

void ThreadRun::turn_heads(const Step& step, int64_t i, int64_t token) {
  if (m_.shape.query_key_norm != QueryKeyNorm::none) norm_heads(step, i, token);
  const size_t row = size_t(i * m_.limits.max_tokens + token);
  const int64_t dim = m_.shape.head_dim, rotation = m_.shape.layer_features[size_t(step.layer)].rotation;
  const size_t at = rotation < 0 ? 0 : size_t(token) * m_.pairs() + m_.rotation_starts[size_t(rotation)];
  const int64_t pairs = rotation < 0 ? 0 : m_.shape.rotations[size_t(rotation)].pairs;
  auto turn = [&](float* x, float scale) {
    if (pairs > 0) kernels_.rope(x, m_.cosines + at, m_.sines + at, int(pairs), scale);
    for (int64_t d = 2 * pairs; d < dim; d++) x[d] *= scale;
  };
  float* q = m_.q + row * m_.q_stride;
  for (int64_t h = 0; h < m_.shape.tile_query_heads(); h++) turn(q + h * dim, m_.shape.score_scale);
  turn(m_.k + row * m_.kv_stride, 1.0f);
}

void ThreadRun::even_heads(const Step& step, int64_t i, int64_t token) {
  const size_t row = size_t(i * m_.limits.max_tokens + token), dim = size_t(m_.shape.head_dim);
  const float* mean = vector_at(tile(step, i), m_.attention_vectors.key_mean);
  float* q = m_.q + row * m_.q_stride;
  float* k = m_.k + row * m_.kv_stride;
  // Rotating both by H makes scores of these channels 32 times as large.
  const size_t groups = dim / size_t(kGroup), rotated = groups * size_t(kGroup);
  for (size_t d = 0; d < dim; d++) k[d] -= mean[d];
  kernels_.hadamard(k, int(groups));
  for (float* head = q; head < q + m_.shape.tile_query_width(); head += dim) {
    kernels_.hadamard(head, int(groups));
    for (size_t d = 0; d < rotated; d++) head[d] *= 1.0f / 32.0f;
  }
}

// --- one norm over all heads: sums of squares travel as integers, as all sums do ---

constexpr double kSquareUnits = 0x1p30;
constexpr double kMostSquare = 0x1p59;
constexpr int kWordBits = 20;

// In the order of rmsnorm.
static float sum_of_squares(const float* x, int64_t n) {
  float s[16] = {};
  for (int64_t i = 0; i < n; i++) s[i % 16] = std::fma(x[i], x[i], s[i % 16]);
  for (int half = 8; half >= 1; half /= 2)
    for (int l = 0; l < half; l++) s[l] += s[l + half];
  return s[0];
}

// Adds a sum of squares to three words of 20, 20 and 19 bits; returns 1 where it does not fit, or is not a number.
static int64_t add_square(float square, int32_t* words) {
  double units = std::rint(double(square) * kSquareUnits);
  const bool fits = units <= kMostSquare;
  if (!fits) units = units != units ? 0 : kMostSquare - 1;
  const int64_t n = int64_t(units);
  for (int w = 0; w < 3; w++) words[w] += int32_t(n >> (w * kWordBits) & (w == 2 ? ~int64_t(0) : (1 << kWordBits) - 1));
  return fits ? 0 : 1;
}

void ThreadRun::square_tiles(const Step& step) {
  if (step.tile_count == 0) return;
  project(step);
  pool_.each(tokens_, [&](int64_t token) {
    int32_t* words = m_.partial + size_t(token) * width();
    for (int64_t i = 0; i < int64_t(step.tile_count); i++) {
      const size_t row = size_t(i * m_.limits.max_tokens + token);
      add_biases(step, i, token);
      mine_.saturated += add_square(sum_of_squares(m_.q + row * m_.q_stride, m_.shape.tile_query_width()), words);
      mine_.saturated += add_square(sum_of_squares(m_.k + row * m_.kv_stride, m_.shape.head_dim), words + 3);
    }
  });
}

void ThreadRun::square_norms(int64_t token) {
  int32_t* words = m_.partial + size_t(token) * width();
  // Keys are in each part of a KV head, and so counted as often.
  const double channels[2] = {double(m_.shape.query_heads * m_.shape.head_dim),
                              double(m_.shape.kv_heads * m_.shape.parts_per_kv_head * m_.shape.head_dim)};
  for (int which = 0; which < 2; which++) {
    const int32_t* w = words + which * 3;
    const double units = (double(w[2]) * (1 << kWordBits) + double(w[1])) * (1 << kWordBits) + double(w[0]);
    const float mean = float(units / kSquareUnits / channels[which]);
    m_.square_factors[token * 2 + which] = 1.0f / std::sqrt(mean + m_.shape.norm_epsilon);
  }
  std::fill(words, words + kSquareWords, 0);
}

}  // namespace potluck
