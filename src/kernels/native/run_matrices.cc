#include "thread_run.h"

#include <algorithm>

namespace potluck {

void ThreadRun::matmul(const uint8_t* at, const Panel& panel, int64_t block, int blocks, const Rows& rows,
                       int64_t first, int count, float* out, size_t stride) {
  const uint8_t* from = at + panel.offset + block * m_.shape.block_bytes(panel.columns);
  if (w4()) {
    QuantizedRows x = rows.quantized;
    x.base += size_t(first) * x.stride;
    kernels_.w4_matmul(from, blocks, &x, count, out, stride);
  } else {
    kernels_.bf16_matmul(from, blocks, int(panel.padded_columns), rows.floats + size_t(first) * rows.stride, rows.stride,
                         count, out, stride);
  }
}

int64_t ThreadRun::item_blocks(int64_t blocks) const {
  return std::clamp<int64_t>(blocks / (pool_.threads() * 6), 1, kMostBlocks);
}

void ThreadRun::output_panels(const Step& step, const Panel& panel, const Rows& rows) {
  const int64_t all = panel.padded_rows / kBlockRows, chunk = item_blocks(all);
  const float* scale = m_.scale(step.layer, step.half);
  const float limit = m_.limit[step.half];
  pool_.each((all + chunk - 1) / chunk, [&](int64_t item) {
    const int64_t block = item * chunk;
    const int blocks = int(std::min(chunk, all - block));
    const size_t channel = size_t(block * kBlockRows);
    const int channels = int(std::min(size_t(blocks) * 16, width() - channel));
    const size_t stride = size_t(kMostBlocks) * 16;
    for (int64_t i = 0; i < int64_t(step.tile_count); i++) {
      const Picked picked = pick(step, i);
      by_token_chunks(picked.count, [&](int64_t first, int count) {
        matmul(tile(step, i).at, panel, block, blocks, rows, i * m_.limits.max_tokens + first, count, mine_.block, stride);
        for (int t = 0; t < count; t++) {
          float* out = mine_.block + size_t(t) * stride;
          if (picked.weights != nullptr)
            for (int c = 0; c < channels; c++) out[c] *= picked.weights[first + t];
          mine_.saturated += kernels_.add_fixed(out, scale + channel, channels, limit,
                                                m_.partial + size_t(picked.token(first + t)) * width() + channel);
        }
      });
    }
  });
}

}  // namespace potluck
