#include "thread_run.h"

#include <algorithm>

namespace potluck {

void ThreadRun::head_begin() {
  pool_.each(int64_t(m_.batch.logit_rows.size()), [&](int64_t row) {
    const size_t token = size_t(m_.batch.logit_rows[size_t(row)]);
    float* x = norm_into(m_.residual + token * width(), m_.final_norm(), m_.head_input, row);
    if (w4()) quantize_into(x, m_.head_a4(), m_.head_input, row);
  });
}

void ThreadRun::head_tiles(const Step& step) {
  const Panel& panel = m_.head_panels.panel[0];
  const int64_t all = panel.padded_rows / kBlockRows, chunk = item_blocks(all * int64_t(step.tile_count));
  const int64_t items = (all + chunk - 1) / chunk, rows = int64_t(m_.batch.logit_rows.size());
  const size_t stride = size_t(m_.shape.padded_vocabulary());
  if (rows == 0) return;
  pool_.each(items * int64_t(step.tile_count), [&](int64_t item) {
    const PlacedTile& t = tile(step, item / items);
    const int64_t block = item % items * chunk;
    const int blocks = int(std::min(chunk, all - block));
    by_token_chunks(rows, [&](int64_t first, int count) {
      float* out = m_.logits + size_t(first) * stride + size_t(t.slot + block * kBlockRows);
      matmul(t.at, panel, block, blocks, m_.head_input, m_.head_a4(), first, count, out, stride);
      if (m_.shape.logit_cap > 0)
        for (int r = 0; r < count; r++) kernels_.soft_cap(out + size_t(r) * stride, blocks * 16, m_.shape.logit_cap);
    });
  });
}

}  // namespace potluck
