#include "thread_run.h"

namespace potluck {

void ThreadRun::ffn_tiles(const Step& step) {
  if (step.tile_count == 0) return;
  const int64_t groups = m_.shape.ffn_columns / kGroup;
  pool_.each(groups * int64_t(step.tile_count), [&](int64_t item) { ffn_group(step, item / groups, item % groups); });
  output_panels(step, m_.ffn_panels.panel[1], m_.hidden);
}

void ThreadRun::ffn_group(const Step& step, int64_t i, int64_t group) {
  const size_t stride = size_t(kMostBlocks) * 16;
  by_token_chunks(tokens_, [&](int64_t first, int count) {
    matmul(tile(step, i).at, m_.ffn_panels.panel[0], group * 4, 4, m_.input, first, count, mine_.block, stride);
    for (int t = 0; t < count; t++) {
      const float* rows = mine_.block + size_t(t) * stride;
      const size_t row = size_t(i * m_.limits.max_tokens + first + t);
      float* h = w4() ? mine_.hidden : m_.hidden.floats + row * m_.hidden.stride + size_t(group * kGroup);
      kernels_.silu_mul(rows, rows + 16, 16, h);
      kernels_.silu_mul(rows + 32, rows + 48, 16, h + 16);
      if (!w4()) continue;
      uint8_t* at = m_.hidden.quantized.base + row * m_.hidden.quantized.stride;
      float* scale = reinterpret_cast<float*>(at + m_.hidden.quantized.columns);
      int32_t* bias = reinterpret_cast<int32_t*>(scale + m_.hidden.quantized.columns / 32);
      kernels_.quantize(h, 1, reinterpret_cast<int8_t*>(at + group * kGroup), scale + group, bias + group);
    }
  });
}

}  // namespace potluck
