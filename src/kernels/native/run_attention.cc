#include "thread_run.h"

#include <algorithm>

#include "half.h"

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
      finish_attention(step, i, 0);
    });
  } else {
    const std::vector<int32_t>& runs = m_.batch.page_runs;
    const int64_t run_count = int64_t(runs.size()) - 1;
    pool_.each(tiles * run_count, [&](int64_t item) {
      const size_t run = size_t(item % run_count);
      for (int32_t token = runs[run]; token < runs[run + 1]; token++) append(step, item / run_count, token);
    });
    attend_all(step);
  }
  output_panels(step, m_.attention_panels.panel[3], m_.attention_vectors.output_a4, m_.attention_out);
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
      matmul(tile(step, i).at, m_.attention_panels.panel[p], block, blocks, m_.input,
             m_.input_a4(step.layer, 0), first, count, out, strides[p]);
    });
  });
}

// v: [dim], k: [dim], to place `at` of a page.
template <class Kv, class Convert>
static void store_channels(const float* k, const float* v, size_t dim, size_t at, Kv* page, const Convert& convert) {
  Kv* keys = page + at / kKeyBlock * kKeyBlock * dim + at % kKeyBlock;
  Kv* values = page + dim * (kPagePositions + at);
  for (size_t d = 0; d < dim; d++) keys[d * kKeyBlock] = convert(k[d]);
  for (size_t d = 0; d < dim; d++) values[d] = convert(v[d]);
}

void ThreadRun::append(const Step& step, int64_t i, int64_t token) {
  const size_t row = size_t(i * m_.limits.max_tokens + token), dim = size_t(m_.shape.head_dim);
  const float* k = m_.k + row * m_.kv_stride;
  const float* v = m_.v + row * m_.kv_stride;
  add_biases(step, i, token);
  turn_heads(step, i, token);
  const int32_t position = m_.batch.positions[size_t(token)];
  const int32_t number = m_.batch.pages_of(token)[position / kPagePositions];
  uint8_t* page = kv_part(step, i) + size_t(number * m_.shape.kv_part_bytes());
  const int at = int(position % kPagePositions);
  if (m_.shape.nibble_kv()) {
    even_heads(step, i, token);
    const NibbleKv kv{int(dim), int(m_.shape.kv_bits / 4)};
    kernels_.store_key(&kv, k, at, page);
    kernels_.store_value(&kv, v, at, page);
  } else if (m_.shape.kv_bits == 16) {
    store_channels(k, v, dim, size_t(at), reinterpret_cast<uint16_t*>(page), to_half_bits);
  } else {
    store_channels(k, v, dim, size_t(at), reinterpret_cast<float*>(page), [](float x) { return x; });
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
  // Threads take tiles in turn. Several tokens share their pages.
  const int64_t next = i + pool_.threads();
  args.next = tokens_ == 1 && next < int64_t(step.tile_count) ? kv_part(step, next) : nullptr;
  args.page_bytes = size_t(m_.shape.kv_part_bytes());
  args.pages = m_.batch.pages_of(token);
  args.positions = m_.batch.positions[size_t(token)] + 1;
  const int64_t window = m_.shape.layer_features[size_t(step.layer)].window;
  args.first = window == 0 ? 0 : std::max(0, args.positions - int(window));
  args.soft_cap = m_.shape.score_cap;
  args.planes = int(m_.shape.kv_bits / 4);
  args.scores = mine_.scores;
  args.running = mine_.running;
  args.queries = mine_.queries;
  args.out = m_.attention_floats + row * m_.attention_stride + size_t(first_head) * dim;
  (m_.shape.nibble_kv()      ? kernels_.attention_nibbles
   : m_.shape.kv_bits == 16 ? kernels_.attention_half
                            : kernels_.attention_float)(&args);
}

void ThreadRun::attend_all(const Step& step) {
  const int64_t pairs = int64_t(step.tile_count) * tokens_, heads = m_.shape.tile_query_heads();
  const int64_t chunk = std::min<int64_t>(4, heads), chunks = (heads + chunk - 1) / chunk;
  pool_.each(pairs * chunks, [&](int64_t item) {
    // Late tokens have the most keys: they come first, so that the threads end together.
    const int64_t first = item % chunks * chunk, pair = pairs - 1 - item / chunks;
    attend(step, pair % int64_t(step.tile_count), pair / int64_t(step.tile_count), int(first),
           int(std::min(chunk, heads - first)));
    if (chunks == 1) finish_attention(step, pair % int64_t(step.tile_count), pair / int64_t(step.tile_count));
  });
  if (chunks > 1 && w4()) pool_.each(pairs, [&](int64_t pair) { finish_attention(step, pair / tokens_, pair % tokens_); });
}

void ThreadRun::finish_attention(const Step& step, int64_t i, int64_t token) {
  if (!w4()) return;
  const int64_t row = i * m_.limits.max_tokens + token;
  float* x = m_.attention_floats + size_t(row) * m_.attention_stride;
  const float* a4 = a4_of(tile(step, i), m_.attention_vectors.output_a4);
  if (m_.shape.rotated_values())
    return quantize_groups(x, a4, int64_t(m_.attention_stride) / kGroup, m_.attention_out, row, 0);
  std::fill(x + m_.shape.tile_query_width(), x + m_.attention_stride, 0.0f);  // a rotation before wrote there
  quantize_into(x, a4, m_.attention_out, row);
}

}  // namespace potluck
