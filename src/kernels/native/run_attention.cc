#include "thread_run.h"

#include <algorithm>

namespace potluck {

void ThreadRun::attention_tiles(const Step& step) {
  if (step.tile_count == 0) return;
  project(step);
  const int64_t tiles = int64_t(step.tile_count);
  if (tokens_ == 1) {
    // A tile needs only its own key and value here.
    pool_.each(tiles, [&](int64_t i) {
      append(step, i, 0);
      attend(step, i, 0, 0, int(m_.shape.tile_query_heads()));
      finish_attention(i, 0);
    });
  } else {
    pool_.each(tiles * tokens_, [&](int64_t item) { append(step, item / tokens_, item % tokens_); });
    attend_all(step);
  }
  output_panels(step, m_.attention_panels.panel[3], m_.attention_out);
}

void ThreadRun::project(const Step& step) {
  int64_t blocks_of[3], all = 0;
  for (int p = 0; p < 3; p++) all += blocks_of[p] = m_.attention_panels.panel[p].padded_rows / kBlockRows;
  const int64_t chunk = item_blocks(all * int64_t(step.tile_count));
  int64_t items_of[3], items = 0;
  for (int p = 0; p < 3; p++) items += items_of[p] = (blocks_of[p] + chunk - 1) / chunk;
  float* const outs[3] = {m_.q, m_.k, m_.v};
  const size_t strides[3] = {m_.q_stride, m_.kv_stride, m_.kv_stride};
  pool_.each(items * int64_t(step.tile_count), [&](int64_t item) {
    const int64_t i = item / items;
    int64_t rest = item % items;
    int p = 0;
    while (rest >= items_of[p]) rest -= items_of[p++];
    const int64_t block = rest * chunk;
    const int blocks = int(std::min(chunk, blocks_of[p] - block));
    by_token_chunks(tokens_, [&](int64_t first, int count) {
      float* out = outs[p] + size_t(i * m_.limits.max_tokens + first) * strides[p] + size_t(block * kBlockRows);
      matmul(tile(step, i).at, m_.attention_panels.panel[p], block, blocks, m_.input, first, count, out, strides[p]);
    });
  });
}

// k, v: [dim], to position `at` of a part of a page.
static void store_floats(const float* k, const float* v, int dim, size_t at, float* part) {
  std::copy(v, v + dim, part + size_t(dim) * (kPagePositions + at));
  for (int d = 0; d < dim; d++) part[size_t(d) * kPagePositions + at] = k[d];
}

void ThreadRun::append(const Step& step, int64_t i, int64_t token) {
  const size_t row = size_t(i * m_.limits.max_tokens + token);
  const int dim = int(m_.shape.head_dim);
  const float* k = m_.k + row * m_.kv_stride;
  add_biases(step, i, token);
  turn_heads(step, i, token);
  const int32_t position = m_.batch.positions[size_t(token)];
  const int32_t page = m_.batch.pages_of(token)[position / kPagePositions];
  uint8_t* part = kv_part(step, i) + size_t(page) * m_.page_bytes;
  const size_t at = size_t(position % kPagePositions);
  if (w4())
    store_halves(k, m_.v + row * m_.kv_stride, dim, at, reinterpret_cast<uint16_t*>(part));
  else
    store_floats(k, m_.v + row * m_.kv_stride, dim, at, reinterpret_cast<float*>(part));
}

void ThreadRun::store_halves(const float* k, const float* v, int dim, size_t at, uint16_t* part) {
  uint16_t* column = reinterpret_cast<uint16_t*>(mine_.block);
  kernels_.to_half(v, dim, part + size_t(dim) * (kPagePositions + at));
  for (int d = 0; d < dim; d += 256) {
    const int count = std::min(256, dim - d);
    kernels_.to_half(k + d, count, column);
    for (int e = 0; e < count; e++) part[size_t(d + e) * kPagePositions + at] = column[e];
  }
}

void ThreadRun::attend(const Step& step, int64_t i, int64_t token, int first_head, int heads) {
  const size_t row = size_t(i * m_.limits.max_tokens + token);
  const size_t dim = size_t(m_.shape.head_dim);
  AttentionArgs args{};
  args.q = m_.q + row * m_.q_stride + size_t(first_head) * dim;
  args.heads = heads;
  args.head_dim = int(dim);
  args.kv = kv_part(step, i);
  args.page_bytes = m_.page_bytes;
  args.pages = m_.batch.pages_of(token);
  args.positions = m_.batch.positions[size_t(token)] + 1;
  const int64_t window = m_.shape.layer_features[size_t(step.layer)].window;
  args.first = window == 0 ? 0 : std::max(0, args.positions - int(window));
  args.soft_cap = m_.shape.score_cap;
  args.scores = mine_.scores;
  args.out = m_.attention_floats + row * m_.attention_stride + size_t(first_head) * dim;
  if (w4())
    kernels_.attention(&args);
  else
    kernels_.attention_float(&args);
}

void ThreadRun::attend_all(const Step& step) {
  const int64_t pairs = int64_t(step.tile_count) * tokens_, heads = m_.shape.tile_query_heads();
  const int64_t chunk = std::min<int64_t>(4, heads), chunks = (heads + chunk - 1) / chunk;
  pool_.each(pairs * chunks, [&](int64_t item) {
    // Late tokens have the most keys: they come first, so that the threads end together.
    const int64_t first = item % chunks * chunk, pair = pairs - 1 - item / chunks;
    attend(step, pair % int64_t(step.tile_count), pair / int64_t(step.tile_count), int(first),
           int(std::min(chunk, heads - first)));
    if (chunks == 1) finish_attention(pair % int64_t(step.tile_count), pair / int64_t(step.tile_count));
  });
  if (chunks > 1 && w4()) pool_.each(pairs, [&](int64_t pair) { finish_attention(pair / tokens_, pair % tokens_); });
}

void ThreadRun::finish_attention(int64_t i, int64_t token) {
  const int64_t row = i * m_.limits.max_tokens + token;
  if (w4()) quantize_into(m_.attention_floats + size_t(row) * m_.attention_stride, m_.attention_out, row);
}

}  // namespace potluck
