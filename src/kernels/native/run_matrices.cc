#include "thread_run.h"

#include <algorithm>

namespace potluck {

// Tokens of one item where there are many: so many that weights are used often, so few that threads end together.
constexpr int64_t kItemTokens = 128;

void ThreadRun::matmul(const uint8_t* at, const Panel& panel, int64_t block, int blocks, const Rows& rows,
                       const float* a4, int64_t first, int count, float* out, size_t stride) {
  const uint8_t* from = at + panel.offset + block * m_.shape.block_bytes(panel.columns);
  if (w4()) {
    QuantizedRows x = rows.quantized;
    x.base += size_t(first) * x.stride;
    x.a4 = a4;
    kernels_.w4_matmul(from, blocks, &x, count, out, stride);
  } else {
    kernels_.bf16_matmul(from, blocks, int(panel.padded_columns), rows.floats + size_t(first) * rows.stride, rows.stride,
                         count, out, stride);
  }
}

int64_t ThreadRun::item_blocks(int64_t blocks) const {
  return std::clamp<int64_t>(blocks / (pool_.threads() * 6), 1, kMostBlocks);
}

void ThreadRun::output_panels(const Step& step, const Panel& panel, int64_t a4_at, const Rows& rows) {
  const int64_t all = panel.padded_rows / kBlockRows, tiles = int64_t(step.tile_count);
  if (tokens_ > kTokenChunk) {
    // An item is a part of all sums: weights are used for many tokens, which takes longer than reading them. Expert tiles have
    // other tokens each.
    const int64_t chunk = item_blocks(all), together = step.op == Op::tiles ? kItemTokens : tokens_;
    const int64_t spans = (tokens_ + together - 1) / together;
    pool_.each((all + chunk - 1) / chunk * spans, [&](int64_t item) {
      const int64_t block = item / spans * chunk, blocks = std::min(chunk, all - block), token = item % spans * together;
      for (int64_t i = 0; i < tiles; i++)
        output_blocks(step, panel, a4_at, rows, i, block, blocks, {token, token + together}, m_.partial);
    });
    return;
  }
  // Few tokens: a thread reads a tile as it lies, and adds to sums of its own. They are integers, so it does not matter
  // which thread had which part.
  std::fill(mine_.partial, mine_.partial + size_t(tokens_) * width(), 0);
  pool_.each_stretch(all * tiles, [&](int64_t from, int64_t to) {
    by_tile(from, to, all, [&](int64_t i, int64_t first, int64_t past) {
      output_blocks(step, panel, a4_at, rows, i, first, past - first, {0, tokens_}, mine_.partial);
    });
  });
  add_sums();
}

void ThreadRun::output_blocks(const Step& step, const Panel& panel, int64_t a4_at, const Rows& rows, int64_t i,
                              int64_t block, int64_t blocks, Span tokens, int32_t* sums) {
  const float limit = m_.limit[step.half];
  const Picked picked = pick(step, i);
  const int64_t past_token = std::min(tokens.past, picked.count), token_count = past_token - tokens.first;
  const int64_t most = kMostOutputs / std::clamp<int64_t>(token_count, 1, kTokenChunk);
  for (const int64_t end = block + blocks; block < end; block += most) {
    const int64_t now = std::min(most, end - block);
    const size_t channel = size_t(block * kBlockRows), stride = size_t(now) * 16;
    const int channels = int(std::min(stride, width() - channel));
    const float* scale = m_.scale(step.layer, step.half) + channel;
    by_token_chunks(token_count, [&](int64_t from, int count) {
      const int64_t first = tokens.first + from;
      matmul(tile(step, i).at, panel, block, int(now), rows, a4_of(tile(step, i), a4_at),
             i * m_.limits.max_tokens + first, count, mine_.block, stride);
      for (int t = 0; t < count; t++) {
        float* out = mine_.block + size_t(t) * stride;
        if (picked.weights != nullptr)
          for (int c = 0; c < channels; c++) out[c] *= picked.weights[first + t];
        mine_.saturated += kernels_.add_fixed(out, scale, channels, limit,
                                              sums + size_t(picked.token(first + t)) * width() + channel);
      }
    });
  }
}

void ThreadRun::add_sums() {
  constexpr int64_t kChunk = 512;
  const int64_t sums = tokens_ * int64_t(width());
  pool_.each((sums + kChunk - 1) / kChunk, [&](int64_t item) {
    const int64_t first = item * kChunk, last = std::min(sums, first + kChunk);
    for (const ThreadScratch& thread : m_.threads)
      for (int64_t i = first; i < last; i++) m_.partial[i] = int32_t(uint32_t(m_.partial[i]) + uint32_t(thread.partial[i]));
  });
}

}  // namespace potluck
