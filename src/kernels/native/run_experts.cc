#include "thread_run.h"

#include <algorithm>
#include <cstring>

namespace potluck {

// In place of the share of an expert that was picked.
constexpr float kPicked = -1.0f;

void ThreadRun::route(const Step& step, int64_t token, const float* x) {
  const ModelShape& s = m_.shape;
  const uint8_t* router = reinterpret_cast<const uint8_t*>(m_.layer_constant(step.layer, m_.constants_layout.router));
  const size_t columns = size_t(round_up(s.width, kGroup)), block_bytes = columns * kBlockRows * 2;
  float* scores = mine_.routes;
  for (int64_t block = 0; block * kBlockRows < s.experts; block++)
    kernels_.bf16_matmul(router + size_t(block) * block_bytes, 1, int(columns), x, columns, 1, scores + block * kBlockRows,
                         size_t(kBlockRows));
  // Shares of all experts, in rising order.
  float most = scores[0];
  for (int64_t e = 1; e < s.experts; e++) most = scores[e] > most ? scores[e] : most;
  for (int64_t e = 0; e < s.experts; e++) scores[e] -= most;
  kernels_.exp(scores, int(s.experts), scores);
  float all = 0;
  for (int64_t e = 0; e < s.experts; e++) all += scores[e];
  // The likeliest, of equals the first; a picked one is marked by a negative share, and none is picked twice, also where shares
  // are no numbers.
  int32_t* picked = m_.routes + size_t(token * s.experts_per_token);
  float* weights = m_.route_weights + size_t(token * s.experts_per_token);
  float some = 0;
  for (int64_t n = 0; n < s.experts_per_token; n++) {
    int64_t best = -1;
    for (int64_t e = 0; e < s.experts; e++)
      if (scores[e] != kPicked && (best < 0 || !(scores[e] <= scores[best]))) best = e;
    picked[n] = int32_t(best);
    weights[n] = scores[best];
    some += scores[best];
    scores[best] = kPicked;
  }
  for (int64_t n = 0; n < s.experts_per_token; n++) weights[n] /= s.normalized_experts ? some : all;
}

ThreadRun::Picked ThreadRun::pick(const Step& step, int64_t i) {
  if (step.op != Op::expert_tiles) return Picked{tokens_};
  const int64_t expert = tile(step, i).slot, each = m_.shape.experts_per_token;
  int64_t count = 0;
  for (int64_t t = 0; t < tokens_; t++)
    for (int64_t n = t * each; n < (t + 1) * each; n++) {
      if (m_.routes[n] != expert) continue;
      mine_.picked[count] = int32_t(t);
      mine_.picked_weights[count++] = m_.route_weights[n];
      break;  // `picked` has room for each token once; a program that did not route leaves anything in `routes`
    }
  return Picked{count, mine_.picked, mine_.picked_weights};
}

Rows ThreadRun::picked_inputs(const Picked& picked, int64_t first, int count, int64_t* row) {
  *row = first;
  if (picked.tokens == nullptr) return m_.input;
  *row = 0;
  Rows rows = m_.input;
  uint8_t* from = w4() ? m_.input.quantized.base : reinterpret_cast<uint8_t*>(m_.input.floats);
  const size_t bytes = w4() ? m_.input.quantized.stride : m_.input.stride * sizeof(float);
  for (int t = 0; t < count; t++)
    std::memcpy(mine_.gathered + size_t(t) * bytes, from + size_t(picked.tokens[first + t]) * bytes, bytes);
  rows.quantized.base = mine_.gathered;
  rows.floats = reinterpret_cast<float*>(mine_.gathered);
  return rows;
}

}  // namespace potluck
