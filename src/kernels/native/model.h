// One open model: its shape, constants, scratch memory, keys and values, and the batch of the current pass.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels.h"
#include "pool.h"
#include "tile_shape.h"

namespace potluck {

static_assert(kLevelChannels == kBlockGroups * kGroup, "a block of 128 channels has one level");

// A pool of threads and the kernels that they run.
struct Engine {
  Engine(int threads, const Kernels* k) : kernels(k), pool(threads) {}
  const Kernels* kernels;
  Pool pool;
};

// Row blocks of one matmul call for kTokenChunk tokens, at most.
constexpr int kMostBlocks = 8;
// Outputs of one matmul call for any number of tokens, in row blocks, where an item can have so few: they stay in the nearest
// cache.
constexpr int kMostOutputs = kTokenChunk * kMostBlocks;
// Row blocks of the gate and up panel that make 128 hidden columns: gate, up, gate, up for each 32.
constexpr int kHiddenBlocks = 4 * kBlockGroups;

// What one thread works in.
struct ThreadScratch {
  float* block;   // [kTokenChunk * kHiddenBlocks * 16] outputs of one matmul call, [tokens, blocks * 16]
  float* row;     // [width padded to 32] a normed row
  float* sum;     // [width padded to 32] the sum over all tiles of a half layer
  float* head;    // [head_dim padded to 32] a normed query or key
  float* routes;  // [experts padded to 16] the router's scores
  int32_t* picked;       // [max_tokens] tokens of one expert
  float* picked_weights; // [max_tokens]
  uint8_t* gathered;     // [kTokenChunk] rows of their inputs, as in `input`
  float* hidden;  // [max(kMostOutputs, kHiddenBlocks) / 4 * 32] FFN activations of a token, w4 only
  int32_t* partial;  // [kTokenChunk, width] this thread's part of the sums of a half layer
  float* scores;     // [kHeadsAtOnce, kStretch]
  float* running;    // [heads of a tile, kRunning]
  uint8_t* queries;  // [heads of a tile] quantized rows of head_dim padded to 32
  int64_t saturated;
};

// Activations of a panel's input: quantized rows for w4, floats for bf16.
struct Rows {
  QuantizedRows quantized{};
  float* floats = nullptr;  // [rows, stride]
  size_t stride = 0;
};

struct Batch {
  std::vector<int32_t> positions;          // [tokens]
  std::vector<int32_t> sequences;          // [tokens]
  std::vector<int32_t> pages;              // page tables, one after another
  std::vector<int32_t> page_table_starts;  // [sequences + 1] into pages
  std::vector<int32_t> logit_rows;         // [logit rows]
  std::vector<int32_t> page_runs;          // first token of each run of tokens that share a page, and the end
  std::vector<int32_t> lengths;            // [tokens] row of `frequencies`: which length of the sequence holds
  std::vector<float> frequencies;          // [rows, pairs of all rotations]
  bool rotated = false;                    // the rope table is of these positions

  int64_t tokens() const { return int64_t(positions.size()); }
  const int32_t* pages_of(int64_t token) const {
    return pages.data() + page_table_starts[size_t(sequences[size_t(token)])];
  }
};

struct ModelLimits {
  int64_t attention_tiles, kv_pages, max_tokens, max_logit_rows;
};

class Model {
 public:
  ModelShape shape;
  ModelLimits limits;
  std::shared_ptr<Engine> engine;

  ConstantsLayout constants_layout;
  std::vector<float> constants;  // as in the pack, constants_layout.floats of them
  std::vector<float> inverses;   // [layers, 2, width] residual_scale / scale
  std::vector<size_t> rotation_starts;  // [rotations + 1] first pair of each among those of all
  float limit[2];  // largest fixed-point magnitude of one tile's output, by half

  const uint8_t* weights = nullptr;
  size_t weights_bytes = 0;

  float* residual = nullptr;   // [max_tokens, width]
  int32_t* partial = nullptr;  // [max_tokens, width]
  float* logits = nullptr;     // [max_logit_rows, padded vocabulary]
  int32_t* routes = nullptr;   // [max_tokens, experts_per_token] experts of each token, likeliest first

  TilePanels attention_panels, ffn_panels, expert_panels, head_panels;
  TileVectors attention_vectors, ffn_vectors, expert_vectors;

  // Scratch, all in one mapping.
  Rows input;          // [max_tokens] of width: a half layer's input
  Rows head_input;     // [max_logit_rows] of width
  Rows attention_out;  // [tiles * max_tokens] of tile_query_width
  Rows hidden;         // [tiles * max_tokens] of ffn_columns
  float* q = nullptr;  // [tiles, max_tokens, q_stride]
  float* k = nullptr;  // [tiles, max_tokens, kv_stride]
  float* v = nullptr;
  size_t q_stride = 0, kv_stride = 0;
  float* attention_floats = nullptr;  // [tiles * max_tokens, attention_stride] before quantizing
  size_t attention_stride = 0;
  float* cosines = nullptr;  // [max_tokens, pairs of all rotations]
  float* sines = nullptr;
  float* route_weights = nullptr;   // [max_tokens, experts_per_token]
  float* square_factors = nullptr;  // [max_tokens, 2] of a token's queries and keys: 1 / sqrt(mean square + epsilon)
  std::vector<ThreadScratch> threads;

  uint8_t* kv = nullptr;  // [attention_tiles, kv_pages, kv_part_bytes]: attention reads a tile's pages as one stream

  Batch batch;
  bool running = false;  // JS thread only
  bool closed = false;

  ~Model() { close(); }
  // Maps scratch and keys and values; an error text, or empty.
  std::string reserve();
  size_t scratch_bytes() const { return scratch_bytes_; }
  // Unmaps, and drops the regions held. The model does not run then.
  void close();

  const float* layer_constant(int64_t layer, int64_t entry) const {
    return constants.data() + size_t(layer * constants_layout.layer_floats + entry);
  }
  const float* norm(int64_t layer, int half) const {
    return layer_constant(layer, half == 0 ? constants_layout.attention_norm : constants_layout.ffn_norm);
  }
  const float* scale(int64_t layer, int half) const {
    return layer_constant(layer, half == 0 ? constants_layout.attention_scale : constants_layout.ffn_scale);
  }
  // What is added to the sum over all tiles of a half layer, or its norm; null where the model has none.
  const float* sum_bias(int64_t layer, int half) const {
    if (half == 0 ? !shape.output_bias : !shape.down_bias) return nullptr;
    return layer_constant(layer, half == 0 ? constants_layout.output_bias : constants_layout.down_bias);
  }
  const float* output_norm(int64_t layer, int half) const {
    if (!shape.output_norms) return nullptr;
    return layer_constant(layer, half == 0 ? constants_layout.attention_output_norm : constants_layout.ffn_output_norm);
  }
  // For each block of 128 channels of a half layer's input 1 for 4-bit activations, else 0; w4 only.
  const float* input_a4(int64_t layer, int half) const {
    return layer_constant(layer, half == 0 ? constants_layout.attention_in_a4 : constants_layout.ffn_in_a4);
  }
  const float* head_a4() const { return constants.data() + size_t(constants_layout.head_in_a4); }
  const float* inverse(int64_t layer, int half) const {
    return inverses.data() + size_t((layer * 2 + half) * shape.width);
  }
  size_t pairs() const { return rotation_starts.back(); }
  const float* final_norm() const { return constants.data() + size_t(constants_layout.final_norm); }

  std::vector<const void*> held;  // regions of hold_memory

 private:
  void place(uint8_t* base, size_t* bytes);
  uint8_t* scratch_ = nullptr;
  size_t scratch_bytes_ = 0;
  size_t kv_bytes_ = 0;
};

}  // namespace potluck
