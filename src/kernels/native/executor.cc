#include "executor.h"

#include <algorithm>
#include <cmath>

#include "rope_table.h"

namespace potluck {

// The work of one thread on one job. All threads walk the same steps; Pool::each spreads the items of a phase and is
// the barrier behind it.
class ThreadRun {
 public:
  ThreadRun(Job& job, Pool& pool, int thread)
      : m_(*job.model_),
        program_(job.program_),
        kernels_(*m_.engine->kernels),
        pool_(pool),
        mine_(m_.threads[size_t(thread)]),
        tokens_(m_.batch.tokens()) {}

  void run() {
    mine_.saturated = 0;
    if (!m_.batch.rotated) rotate_table();
    const std::vector<Step>& steps = program_.steps;
    for (size_t i = 0; i < steps.size();) {
      const Step& step = steps[i];
      if (step.op == Op::begin || step.op == Op::end) {
        size_t last = i + 1;
        while (last < steps.size() && (steps[last].op == Op::begin || steps[last].op == Op::end)) last++;
        pool_.each(tokens_, [&](int64_t token) {
          for (size_t s = i; s < last; s++) token_step(steps[s], token);
        });
        i = last;
        continue;
      }
      if (step.op == Op::head_begin) head_begin();
      if (step.op == Op::head_tiles) head_tiles(step);
      if (step.op == Op::tiles && step.half == 0) attention_tiles(step);
      if (step.op == Op::tiles && step.half == 1) ffn_tiles(step);
      i++;
    }
  }

 private:
  bool w4() const { return m_.shape.weights == Weights::w4; }
  size_t width() const { return size_t(m_.shape.width); }
  const PlacedTile& tile(const Step& step, int64_t i) const { return program_.tiles[step.first_tile + size_t(i)]; }

  void rotate_table() {
    const int half = int(m_.shape.head_dim / 2);
    pool_.each(tokens_, [&](int64_t t) {
      rope_row(m_.batch.positions[size_t(t)], m_.frequencies.data(), half, m_.cosines + t * half, m_.sines + t * half);
    });
  }

  // --- row by row ---

  void norm_into(const float* x, const float* weight, const Rows& rows, int64_t row) {
    if (!w4()) {
      kernels_.rmsnorm(x, weight, int(width()), m_.shape.norm_epsilon, rows.floats + size_t(row) * rows.stride);
      return;
    }
    kernels_.rmsnorm(x, weight, int(width()), m_.shape.norm_epsilon, mine_.row);
    quantize_into(mine_.row, rows, row);
  }

  // x: [columns of the rows].
  void quantize_into(const float* x, const Rows& rows, int64_t row) {
    const size_t columns = rows.quantized.columns;
    uint8_t* at = rows.quantized.base + size_t(row) * rows.quantized.stride;
    float* scale = reinterpret_cast<float*>(at + columns);
    kernels_.quantize(x, int(columns / 32), reinterpret_cast<int8_t*>(at), scale,
                      reinterpret_cast<int32_t*>(scale + columns / 32));
  }

  void token_step(const Step& step, int64_t token) {
    float* residual = m_.residual + size_t(token) * width();
    int32_t* partial = m_.partial + size_t(token) * width();
    if (step.op == Op::end) {
      kernels_.add_residual(residual, partial, m_.inverse(step.layer, step.half), int(width()));
      return;
    }
    norm_into(residual, m_.norm(step.layer, step.half), m_.input, token);
    std::fill(partial, partial + width(), 0);
  }

  void head_begin() {
    pool_.each(int64_t(m_.batch.logit_rows.size()), [&](int64_t row) {
      const size_t token = size_t(m_.batch.logit_rows[size_t(row)]);
      norm_into(m_.residual + token * width(), m_.final_norm(), m_.head_input, row);
    });
  }

  // --- matrices ---

  // Row blocks [block, block + blocks) of a panel times rows [first, first + count); out[(t - first) * stride + ...].
  void matmul(const uint8_t* at, const Panel& panel, int64_t block, int blocks, const Rows& rows, int64_t first, int count,
              float* out, size_t stride) {
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

  // Blocks of one item, so that every thread gets several of `blocks` in all.
  int64_t item_blocks(int64_t blocks) const {
    return std::clamp<int64_t>(blocks / (pool_.threads() * 6), 1, kMostBlocks);
  }

  template <typename Call>
  void by_token_chunks(int64_t tokens, const Call& call) {
    for (int64_t t = 0; t < tokens; t += kTokenChunk) call(t, int(std::min<int64_t>(kTokenChunk, tokens - t)));
  }

  // Adds the output panels of all tiles, by blocks of output channels: no two items touch the same part of `partial`.
  // Row of tile i and token t in `rows`: i * max_tokens + t.
  void output_panels(const Step& step, const Panel& panel, const Rows& rows) {
    const int64_t all = panel.padded_rows / kBlockRows, chunk = item_blocks(all);
    const float* scale = m_.scale(step.layer, step.half);
    const float limit = m_.limit[step.half];
    pool_.each((all + chunk - 1) / chunk, [&](int64_t item) {
      const int64_t block = item * chunk;
      const int blocks = int(std::min(chunk, all - block));
      const size_t channel = size_t(block * kBlockRows);
      const int channels = int(std::min(size_t(blocks) * 16, width() - channel));
      const size_t stride = size_t(kMostBlocks) * 16;
      for (int64_t i = 0; i < int64_t(step.tile_count); i++)
        by_token_chunks(tokens_, [&](int64_t first, int count) {
          matmul(tile(step, i).at, panel, block, blocks, rows, i * m_.limits.max_tokens + first, count, mine_.block, stride);
          for (int t = 0; t < count; t++)
            mine_.saturated += kernels_.add_fixed(mine_.block + size_t(t) * stride, scale + channel, channels, limit,
                                                  m_.partial + size_t(first + t) * width() + channel);
        });
    });
  }

  // --- attention ---

  void attention_tiles(const Step& step) {
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

  // q, k and v of all tiles and tokens.
  void project(const Step& step) {
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

  uint8_t* kv_part(const Step& step, int64_t i) const {
    return m_.kv + tile(step, i).slot * m_.shape.kv_part_bytes();
  }

  // Rotates q and k of a token, and stores k and v in its page. K part: [head_dim, 16 positions]; V part behind
  // it: [16 positions, head_dim]; halves or floats.
  void append(const Step& step, int64_t i, int64_t token) {
    const size_t row = size_t(i * m_.limits.max_tokens + token);
    const int dim = int(m_.shape.head_dim), half = dim / 2;
    const float* c = m_.cosines + token * half;
    const float* s = m_.sines + token * half;
    float* q = m_.q + row * m_.q_stride;
    float* k = m_.k + row * m_.kv_stride;
    const float scale = 1.0f / std::sqrt(float(dim));
    for (int h = 0; h < m_.shape.tile_query_heads(); h++) kernels_.rope(q + h * dim, c, s, half, scale);
    kernels_.rope(k, c, s, half, 1.0f);
    const int32_t position = m_.batch.positions[size_t(token)];
    const int32_t page = m_.batch.pages_of(token)[position / kPagePositions];
    uint8_t* part = kv_part(step, i) + size_t(page) * m_.page_bytes;
    const size_t at = size_t(position % kPagePositions);
    if (w4())
      store_halves(k, m_.v + row * m_.kv_stride, dim, at, reinterpret_cast<uint16_t*>(part));
    else
      store_floats(k, m_.v + row * m_.kv_stride, dim, at, reinterpret_cast<float*>(part));
  }

  void store_halves(const float* k, const float* v, int dim, size_t at, uint16_t* part) {
    uint16_t* column = reinterpret_cast<uint16_t*>(mine_.block);
    kernels_.to_half(v, dim, part + size_t(dim) * (kPagePositions + at));
    for (int d = 0; d < dim; d += 256) {
      const int count = std::min(256, dim - d);
      kernels_.to_half(k + d, count, column);
      for (int e = 0; e < count; e++) part[size_t(d + e) * kPagePositions + at] = column[e];
    }
  }

  static void store_floats(const float* k, const float* v, int dim, size_t at, float* part) {
    std::copy(v, v + dim, part + size_t(dim) * (kPagePositions + at));
    for (int d = 0; d < dim; d++) part[size_t(d) * kPagePositions + at] = k[d];
  }

  void attend(const Step& step, int64_t i, int64_t token, int first_head, int heads) {
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
    args.scores = mine_.scores;
    args.out = m_.attention_floats + row * m_.attention_stride + size_t(first_head) * dim;
    if (w4())
      kernels_.attention(&args);
    else
      kernels_.attention_float(&args);
  }

  // Columns behind the heads are zero from the start and nobody writes them.
  void finish_attention(int64_t i, int64_t token) {
    const int64_t row = i * m_.limits.max_tokens + token;
    if (w4()) quantize_into(m_.attention_floats + size_t(row) * m_.attention_stride, m_.attention_out, row);
  }

  void attend_all(const Step& step) {
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

  // --- ffn ---

  void ffn_tiles(const Step& step) {
    if (step.tile_count == 0) return;
    const int64_t groups = m_.shape.ffn_columns / kGroup;
    pool_.each(groups * int64_t(step.tile_count), [&](int64_t item) { ffn_group(step, item / groups, item % groups); });
    output_panels(step, m_.ffn_panels.panel[1], m_.hidden);
  }

  // 32 intermediate columns: 4 row blocks (gate, up, gate, up).
  void ffn_group(const Step& step, int64_t i, int64_t group) {
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

  // --- head ---

  void head_tiles(const Step& step) {
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
        matmul(t.at, panel, block, blocks, m_.head_input, first, count, out, stride);
      });
    });
  }

  Model& m_;
  const Program& program_;
  const Kernels& kernels_;
  Pool& pool_;
  ThreadScratch& mine_;
  const int64_t tokens_;
};

void Job::work(Pool& pool, int thread) { ThreadRun(*this, pool, thread).run(); }

int64_t Job::saturated() const {
  int64_t sum = 0;
  for (const ThreadScratch& t : model_->threads) sum += t.saturated;
  return sum;
}

}  // namespace potluck
