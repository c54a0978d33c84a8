// The work of one thread on one job; src/kernels/native/run_*.cc have its parts by subject.
#pragma once
#include "executor.h"

namespace potluck {

// All threads walk the same steps; Pool::each spreads the items of a phase and is the barrier behind it.
class ThreadRun {
 public:
  ThreadRun(Job& job, Pool& pool, int thread)
      : job_(job),
        m_(*job.model_),
        program_(*job.program_),
        kernels_(*m_.engine->kernels),
        pool_(pool),
        thread_(thread),
        mine_(m_.threads[size_t(thread)]),
        tokens_(m_.batch.tokens()) {}

  void run();

 private:
  bool w4() const { return m_.shape.weights == Weights::w4; }
  size_t width() const { return size_t(m_.shape.width); }
  const PlacedTile& tile(const Step& step, int64_t i) const { return program_.tiles[step.first_tile + size_t(i)]; }
  // For each block of 128 columns of a panel's input 1 for 4-bit activations, else 0; w4 only.
  const float* a4_of(const PlacedTile& tile, int64_t a4_at) const { return reinterpret_cast<const float*>(tile.at + a4_at); }

  // --- executor.cc: what every device does row by row ---

  void rotate_table();
  void token_step(const Step& step, int64_t token);
  // Adds the sum of a half layer to the residual.
  void end(const Step& step, int64_t token);
  // Writes the norm of x (x itself where weight is null), as floats: to the row of a bf16 panel's input, else to scratch.
  // Returns where it is; quantize_into makes the row of a w4 panel's input of it.
  float* norm_into(const float* x, const float* weight, const Rows& rows, int64_t row);
  // x: [columns of the rows], rotated here. a4: for each 128 columns 1 for 4 bits, 0 for 8.
  void quantize_into(float* x, const float* a4, const Rows& rows, int64_t row);
  // The same of an x that is rotated already, or is not to be: `groups` groups of 32 columns, from `group` on, in whole
  // blocks of 128.
  void quantize_groups(const float* x, const float* a4, int64_t groups, const Rows& rows, int64_t row, int64_t group);

  // --- run_matrices.cc ---

  // Row blocks [block, block + blocks) of a panel times rows [first, first + count); out[(t - first) * stride + ...].
  // a4: as the rows were quantized by.
  void matmul(const uint8_t* at, const Panel& panel, int64_t block, int blocks, const Rows& rows, const float* a4,
              int64_t first, int count, float* out, size_t stride);
  // Blocks of one item, so that every thread gets several of `blocks` in all.
  int64_t item_blocks(int64_t blocks) const;
  // Adds the output panels of all tiles. Row of tile i and its n-th token in `rows`: i * max_tokens + n.
  // a4_at: where a tile has what they were quantized by.
  void output_panels(const Step& step, const Panel& panel, int64_t a4_at, const Rows& rows);
  struct Span {
    int64_t first, past;
  };
  // Adds row blocks of the panel of tile i to `sums`: [tokens, width]; at most kMostBlocks where tokens are many. `tokens`: of
  // those that the tile computes, if there are so many.
  void output_blocks(const Step& step, const Panel& panel, int64_t a4_at, const Rows& rows, int64_t i, int64_t block,
                     int64_t blocks, Span tokens, int32_t* sums);
  // Adds the sums of all threads to m_.partial.
  void add_sums();

  // call(i, first, past) for the parts of a stretch that are of one tile i, which has `per_tile` items.
  template <typename Call>
  static void by_tile(int64_t first, int64_t past, int64_t per_tile, const Call& call) {
    while (first < past) {
      const int64_t i = first / per_tile, end = past < (i + 1) * per_tile ? past : (i + 1) * per_tile;
      call(i, first - i * per_tile, end - i * per_tile);
      first = end;
    }
  }
  template <typename Call>
  static void by_token_chunks(int64_t tokens, const Call& call) {
    for (int64_t t = 0; t < tokens; t += kTokenChunk) call(t, int(tokens - t < kTokenChunk ? tokens - t : kTokenChunk));
  }

  // --- run_attention.cc ---

  void attention_tiles(const Step& step);
  // q, k and v of all tiles and tokens.
  void project(const Step& step);
  // The pages of a tile.
  uint8_t* kv_part(const Step& step, int64_t i) const {
    return m_.kv + tile(step, i).slot * m_.limits.kv_pages * m_.shape.kv_part_bytes();
  }
  // Makes q, k and v of a token ready, and stores k and v in its page. No two threads may store into one page at once:
  // nibbles share bytes.
  void append(const Step& step, int64_t i, int64_t token);
  void attend(const Step& step, int64_t i, int64_t token, int first_head, int heads);
  void attend_all(const Step& step);
  void finish_attention(const Step& step, int64_t i, int64_t token);

  // --- run_heads.cc: what happens to queries and keys before attention ---

  // Adds the biases of a tile to its q, k and v of a token.
  void add_biases(const Step& step, int64_t i, int64_t token);
  // Norms and rotates q and k of a tile and token; q is scaled.
  void turn_heads(const Step& step, int64_t i, int64_t token);
  void norm_heads(const Step& step, int64_t i, int64_t token);
  // What keys and queries need to be stored and met in few bits: no constant part, no channel that stands out.
  void even_heads(const Step& step, int64_t i, int64_t token);
  // Sums of squares of the queries and of the keys of tiles, added to `partial`.
  void square_tiles(const Step& step);
  void square_norms(int64_t token);

  // --- run_experts.cc ---

  // The experts of a token: into m_.routes and m_.route_weights. x: its normed input.
  void route(const Step& step, int64_t token, const float* x);
  // Tokens that a tile of a step computes; all of them where `tokens` is null.
  struct Picked {
    int64_t count;
    const int32_t* tokens = nullptr;
    const float* weights = nullptr;
    int64_t token(int64_t n) const { return tokens == nullptr ? n : tokens[n]; }
  };
  // For tile i; what it gives stays until the next call.
  Picked pick(const Step& step, int64_t i);
  // Inputs of `count` picked tokens from `first` on, as rows of their own. Sets *row to the first.
  Rows picked_inputs(const Picked& picked, int64_t first, int count, int64_t* row);

  // --- run_ffn.cc ---

  void ffn_tiles(const Step& step);
  // Groups of 32 intermediate columns of tile i in whole blocks of 128, each of 4 row blocks (gate, up, gate, up).
  void ffn_groups(const Step& step, int64_t i, int64_t group, int64_t groups);
  const TileVectors& vectors_of(const Step& step) const { return step.op == Op::tiles ? m_.ffn_vectors : m_.expert_vectors; }
  // The activations of `groups` groups of one token, from its gate and up outputs, into `row` of m_.hidden.
  void hide(const float* outputs, const float* a4, int64_t group, int64_t groups, int64_t row);

  // --- run_head.cc ---

  void head_begin();
  void head_tiles(const Step& step);

  Job& job_;
  Model& m_;
  const Program& program_;
  const Kernels& kernels_;
  Pool& pool_;
  const int thread_;
  ThreadScratch& mine_;
  const int64_t tokens_;
};

}  // namespace potluck
