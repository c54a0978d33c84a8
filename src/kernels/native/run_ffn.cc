#include "thread_run.h"

namespace potluck {

void ThreadRun::ffn_tiles(const Step& step) {
  if (step.tile_count == 0) return;
  const int64_t groups = m_.shape.ffn_columns / kGroup;
  pool_.each(groups * int64_t(step.tile_count), [&](int64_t item) { ffn_group(step, item / groups, item % groups); });
  output_panels(step, m_.ffn_panels.panel[1], m_.hidden);
}

void ThreadRun::activate(const float* gate, const float* up, float* h) {
  if (m_.shape.activation == Activation::silu)
    kernels_.silu_mul(gate, up, 16, h);
  else
    kernels_.gelu_mul(gate, up, 16, h);
}

void ThreadRun::ffn_group(const Step& step, int64_t i, int64_t group) {
  const size_t stride = size_t(kMostBlocks) * 16;
  const PlacedTile& from = tile(step, i);
  const Picked picked = pick(step, i);
  const bool biased = m_.shape.gate_up_bias && step.op == Op::tiles;
  const float* bias = reinterpret_cast<const float*>(from.at + m_.ffn_vectors.gate_up_bias) + group * 64;
  const TileVectors& vectors = step.op == Op::tiles ? m_.ffn_vectors : m_.expert_vectors;
  const float* a4 = reinterpret_cast<const float*>(from.at + vectors.down_a4);
  by_token_chunks(picked.count, [&](int64_t first, int count) {
    int64_t input_row;
    const Rows inputs = picked_inputs(picked, first, count, &input_row);
    matmul(from.at, m_.ffn_panels.panel[0], group * 4, 4, inputs, input_row, count, mine_.block, stride);
    for (int t = 0; t < count; t++) {
      float* rows = mine_.block + size_t(t) * stride;
      if (biased)
        for (int r = 0; r < 64; r++) rows[r] += bias[r];
      const size_t row = size_t(i * m_.limits.max_tokens + first + t);
      float* h = w4() ? mine_.hidden : m_.hidden.floats + row * m_.hidden.stride + size_t(group * kGroup);
      activate(rows, rows + 16, h);
      activate(rows + 32, rows + 48, h + 16);
      if (!w4()) continue;
      if (m_.shape.hadamard != 0) kernels_.hadamard(h, 1);
      quantize_groups(h, a4, 1, m_.hidden, int64_t(row), group);
    }
  });
}

}  // namespace potluck
