#include "thread_run.h"

#include <algorithm>

namespace potluck {

void ThreadRun::ffn_tiles(const Step& step) {
  if (step.tile_count == 0) return;
  const int64_t groups = m_.shape.ffn_columns / kGroup, blocks = (groups + kBlockGroups - 1) / kBlockGroups;
  pool_.each_stretch(blocks * int64_t(step.tile_count), [&](int64_t from, int64_t to) {
    by_tile(from, to, blocks, [&](int64_t i, int64_t first, int64_t past) {
      ffn_groups(step, i, first * kBlockGroups, std::min(past * kBlockGroups, groups) - first * kBlockGroups);
    });
  });
  output_panels(step, m_.ffn_panels.panel[1], vectors_of(step).down_a4, m_.hidden);
}

void ThreadRun::ffn_groups(const Step& step, int64_t i, int64_t group, int64_t groups) {
  const PlacedTile& from = tile(step, i);
  const Picked picked = pick(step, i);
  const bool biased = m_.shape.gate_up_bias && step.op == Op::tiles;
  const float* bias = reinterpret_cast<const float*>(from.at + m_.ffn_vectors.gate_up_bias);
  const float* a4 = a4_of(from, vectors_of(step).down_a4);
  const int64_t tokens = std::min<int64_t>(std::max<int64_t>(picked.count, 1), kTokenChunk);
  const int64_t most = std::max<int64_t>(kMostOutputs / kHiddenBlocks / tokens, 1) * kBlockGroups;
  for (const int64_t end = group + groups; group < end; group += most) {
    const int64_t now = std::min(most, end - group);
    const size_t stride = size_t(now) * 64;
    by_token_chunks(picked.count, [&](int64_t first, int count) {
      int64_t input_row;
      const Rows inputs = picked_inputs(picked, first, count, &input_row);
      matmul(from.at, m_.ffn_panels.panel[0], group * 4, int(now * 4), inputs,
             m_.input_a4(step.layer, 1), input_row, count, mine_.block, stride);
      for (int t = 0; t < count; t++) {
        float* outputs = mine_.block + size_t(t) * stride;
        if (biased)
          for (size_t r = 0; r < stride; r++) outputs[r] += bias[size_t(group) * 64 + r];
        hide(outputs, a4, group, now, i * m_.limits.max_tokens + first + t);
      }
    });
  }
}

void ThreadRun::hide(const float* outputs, const float* a4, int64_t group, int64_t groups, int64_t row) {
  float* h = w4() ? mine_.hidden : m_.hidden.floats + size_t(row) * m_.hidden.stride + size_t(group * kGroup);
  const auto activate = m_.shape.activation == Activation::silu ? kernels_.silu_mul : kernels_.gelu_mul;
  for (int64_t part = 0; part < groups * 2; part++)
    activate(outputs + part * 32, outputs + part * 32 + 16, 16, h + part * 16);
  if (!w4()) return;
  if (m_.shape.hadamard != 0) kernels_.hadamard(h, int(groups));
  quantize_groups(h, a4, groups, m_.hidden, row, group);
}

}  // namespace potluck
