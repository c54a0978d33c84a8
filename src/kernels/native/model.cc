#include "model.h"

#include <algorithm>
#include <cstring>

#include "memory.h"

namespace potluck {
namespace {

constexpr size_t kMostScratch = size_t(1) << 34;
constexpr size_t kMostKv = size_t(1) << 42;
// Vector loads of a page's last values may read this far behind them.
constexpr size_t kOverread = 128;

}  // namespace

// Gives every array its place behind `base` (null: only counts).
void Model::place(uint8_t* base, size_t* bytes) {
  size_t at = 0;
  auto take = [&](size_t length) {
    uint8_t* here = base == nullptr ? nullptr : base + at;
    at += (length + 63) / 64 * 64;
    return here;
  };
  auto floats = [&](size_t count) { return reinterpret_cast<float*>(take(count * sizeof(float))); };
  const bool w4 = shape.weights == Weights::w4;
  auto rows = [&](Rows* r, size_t count, size_t columns) {
    if (w4) {
      const size_t stride = quantized_row_bytes(columns);
      r->quantized = QuantizedRows{take(count * stride), stride, columns, nullptr};
    } else {
      r->stride = columns;
      r->floats = floats(count * columns);
    }
  };

  const size_t tokens = size_t(limits.max_tokens), logit_rows = size_t(limits.max_logit_rows);
  const size_t width = size_t(round_up(shape.width, kGroup));
  const size_t attention = size_t(shape.tile_count(TileKind::attention)) * tokens;
  const size_t ffn =
      size_t(std::max(shape.step_tiles(TileKind::ffn), shape.step_tiles(TileKind::expert))) * tokens;
  const size_t query = size_t(round_up(shape.tile_query_width(), kGroup));

  rows(&input, tokens, width);
  rows(&head_input, logit_rows, width);
  q_stride = query;
  kv_stride = size_t(round_up(shape.head_dim, kBlockRows));
  q = floats(attention * q_stride);
  k = floats(attention * kv_stride);
  v = floats(attention * kv_stride);
  attention_stride = query;
  attention_floats = floats(attention * query);
  rows(&attention_out, w4 ? attention : 0, query);
  if (!w4) {
    attention_out.floats = attention_floats;
  }
  rows(&hidden, ffn, size_t(shape.ffn_columns));
  cosines = floats(tokens * pairs());
  sines = floats(tokens * pairs());
  route_weights = floats(tokens * size_t(shape.experts_per_token));
  square_factors = floats(tokens * 2);
  for (ThreadScratch& t : threads) {
    t.block = floats(size_t(kTokenChunk) * kHiddenBlocks * 16);
    t.row = floats(width);
    t.sum = floats(width);
    t.head = floats(size_t(round_up(shape.head_dim, kGroup)));
    t.routes = floats(size_t(round_up(shape.experts, kBlockRows)));
    t.picked = reinterpret_cast<int32_t*>(floats(shape.experts > 0 ? tokens : 0));
    t.picked_weights = floats(shape.experts > 0 ? tokens : 0);
    t.gathered = shape.experts > 0 ? take(size_t(kTokenChunk) * (w4 ? input.quantized.stride : input.stride * 4)) : nullptr;
    t.hidden = floats(w4 ? size_t(std::max(kMostOutputs, kHiddenBlocks)) / 4 * 32 : 0);
    t.partial = reinterpret_cast<int32_t*>(floats(size_t(std::min<int64_t>(kTokenChunk, limits.max_tokens) * shape.width)));
    const size_t heads = size_t(shape.tile_query_heads());
    t.scores = floats(kHeadsAtOnce * kStretch);
    t.running = floats(heads * kRunning);
    t.queries = take(heads * quantized_row_bytes(size_t(round_up(shape.head_dim, kGroup))));
    t.saturated = 0;
    take(64);  // no false sharing at the edges
  }
  *bytes = at;
}

std::string Model::reserve() {
  threads.resize(size_t(engine->pool.threads()));
  rotation_starts.assign(1, 0);
  for (const Rotation& r : shape.rotations) rotation_starts.push_back(rotation_starts.back() + size_t(r.pairs));
  place(nullptr, &scratch_bytes_);
  if (scratch_bytes_ > kMostScratch) return "needs more than 16 GiB of scratch memory; lower maxTokens";
  const size_t page_bytes = size_t(shape.kv_page_bytes(limits.attention_tiles));
  if (limits.kv_pages > 0 && page_bytes > kMostKv / size_t(limits.kv_pages)) return "kvPages: more than 4 TiB";
  kv_bytes_ = size_t(limits.kv_pages) * page_bytes + kOverread;
  scratch_ = static_cast<uint8_t*>(map_pages(scratch_bytes_, false));
  if (scratch_ == nullptr) return "the system has not that much scratch memory";
  kv = static_cast<uint8_t*>(map_pages(kv_bytes_, false));
  if (kv == nullptr) return "the system has not that much memory for keys and values";
  // The system gives memory when it is written, and whoever accounts for it counts all of it from the start.
  std::memset(scratch_, 0, scratch_bytes_);
  place(scratch_, &scratch_bytes_);
  return "";
}

void Model::close() {
  closed = true;
  if (scratch_ != nullptr) unmap_pages(scratch_, scratch_bytes_);
  if (kv != nullptr) unmap_pages(kv, kv_bytes_);
  scratch_ = nullptr;
  kv = nullptr;
  for (const void* at : held) drop_memory(at);
  held.clear();
}

}  // namespace potluck
