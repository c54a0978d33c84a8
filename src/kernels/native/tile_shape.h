// Sizes and places inside a tile, as in src/pack/tile-shape.ts; a test compares the two.
//
// A panel is one matrix: rows in blocks of 16, columns padded to groups of 32; all padding is zero.
//
// w4 panel, for each block of 16 rows: group after group, each 256 bytes of nibbles and then 16 scales (IEEE halves, by
// row), so that weights are one stream. The nibbles are 4 vectors of 64. Byte (row * 4 + j) of vector c holds in its
// low nibble the weight of input 8c + j and in its high nibble the weight of input 8c + 4 + j of the group.
// So a 512-bit register is 16 rows x 4 inputs after `& 15` and `>> 4`, without shuffles. Weight = (nibble - 8) * scale.
//
// bf16 panel, for each block of 16 rows: for each column, 16 bf16 (by row).
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace potluck {

enum class Weights { w4 = 0, bf16 = 1 };
enum class TileKind { attention = 0, ffn = 1, expert = 2, head = 3 };
enum class QueryKeyNorm { none = 0, head = 1, whole = 2 };
enum class Activation { silu = 0, gelu_tanh = 1 };

constexpr int64_t kAlignment = 4096;
constexpr int64_t kBlockRows = 16;
constexpr int64_t kGroup = 32;
constexpr int64_t kW4GroupBytes = 256 + 32;
constexpr int64_t kPagePositions = 32;
// Channels of an input whose activations share a level.
constexpr int64_t kLevelChannels = 128;

constexpr int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Expert tiles of one step, at most.
constexpr int64_t kMostExpertTiles = 32;
// int32 of `partial` that hold a token's sums of squares of all queries and of all keys, three words each.
constexpr int64_t kSquareWords = 6;

// What may differ from layer to layer.
struct LayerFeatures {
  int64_t window;    // keys that a token sees, 0: all
  int64_t rotation;  // -1: none
  bool experts;
};

// Pairs that a rotation turns, and what cosines and sines are multiplied by.
struct Rotation {
  int64_t pairs;
  float magnitude;
};

// As in src/pack/manifest.ts.
struct ModelShape {
  Weights weights;
  int64_t width, layers, query_heads, kv_heads, head_dim, ffn_width, vocabulary, context;
  float norm_epsilon;
  int64_t parts_per_kv_head, ffn_columns, head_rows;
  int64_t hadamard;  // inputs and weights of w4 panels are rotated in groups of this many channels: 0 (not) or 32
  int64_t kv_bits;   // of a stored key or value channel: 4, 8, 16 (half) or 32 (float)
  bool input_norms, output_norms;
  QueryKeyNorm query_key_norm;
  bool query_key_value_bias, output_bias, gate_up_bias, down_bias;
  Activation activation;
  float score_scale, score_cap, logit_cap, residual_scale;
  int64_t experts, experts_per_token, expert_width, shared_width;  // 0 experts: none
  bool normalized_experts;
  bool any_dense;  // whether any layer has an FFN of `ffn_width`
  std::vector<LayerFeatures> layer_features;
  std::vector<Rotation> rotations;

  int64_t tile_query_heads() const { return query_heads / kv_heads / parts_per_kv_head; }
  int64_t tile_query_width() const { return tile_query_heads() * head_dim; }

  int64_t ffn_tiles(int64_t columns) const { return (columns + ffn_columns - 1) / ffn_columns; }
  int64_t tiles_per_expert() const { return ffn_tiles(expert_width); }
  // Most tiles of a kind in any one layer (or in the head).
  int64_t tile_count(TileKind kind) const {
    if (kind == TileKind::attention) return kv_heads * parts_per_kv_head;
    if (kind == TileKind::ffn) return ffn_tiles(std::max(any_dense ? ffn_width : 0, shared_width));
    if (kind == TileKind::expert) return experts * tiles_per_expert();
    return (vocabulary + head_rows - 1) / head_rows;
  }
  // Most tiles whose outputs add up for one token in a half layer.
  int64_t summed_tiles(int half) const {
    if (half == 0) return tile_count(TileKind::attention);
    return std::max(any_dense ? ffn_tiles(ffn_width) : 0,
                    ffn_tiles(shared_width) + experts_per_token * tiles_per_expert());
  }
  // Most tiles of one step of a half layer.
  int64_t step_tiles(TileKind kind) const {
    return kind == TileKind::expert ? std::min(kMostExpertTiles, tile_count(kind)) : tile_count(kind);
  }
  // Floats that hold the router: a bf16 panel [experts, width].
  int64_t router_floats() const { return round_up(experts, kBlockRows) * round_up(width, kGroup) / 2; }

  // Blocks of input channels whose activations have 4 or 8 bits each; bf16 panels have none.
  int64_t level_blocks(int64_t columns) const {
    return weights == Weights::w4 ? round_up(columns, kLevelChannels) / kLevelChannels : 0;
  }

  // Bytes of one block of 16 rows of a panel with this many columns.
  int64_t block_bytes(int64_t columns) const {
    const int64_t groups = round_up(columns, kGroup) / kGroup;
    return weights == Weights::w4 ? groups * kW4GroupBytes : groups * kGroup * kBlockRows * 2;
  }
  int64_t panel_bytes(int64_t rows, int64_t columns) const {
    return round_up(rows, kBlockRows) / kBlockRows * block_bytes(columns);
  }

  int64_t padded_vocabulary() const { return tile_count(TileKind::head) * head_rows; }
  bool nibble_kv() const { return kv_bits <= 8; }
  // Values come rotated out of their panel, and so fit the rotated columns of the output panel.
  bool rotated_values() const { return hadamard != 0 && head_dim % hadamard == 0; }
  // A tile's part of a page: keys and values of kPagePositions positions. Nibbles: see NibbleKv in kernels.h.
  int64_t kv_part_bytes() const {
    if (!nibble_kv()) return 2 * kPagePositions * head_dim * (kv_bits / 8);
    const int64_t plane = kv_bits / 4 * 256;
    const int64_t keys = 2 * (round_up(head_dim, kGroup) / kGroup) * (plane + 32);
    return round_up(keys + round_up(head_dim, kBlockRows) / kBlockRows * plane + 2 * kPagePositions, 64);
  }
  int64_t kv_page_bytes(int64_t attention_tiles) const { return attention_tiles * kv_part_bytes(); }
};

struct Panel {
  int64_t offset, rows, padded_rows, columns, padded_columns, bytes;
};

struct TilePanels {
  int count;
  Panel panel[4];
  int64_t vectors;  // where they begin, in bytes
  int64_t tile_bytes;
};

// Where each vector of a tile lies, in bytes from the tile's start. In the order of their lines here, which is that of
// `tileVectors` in src/pack/tile-shape.ts.
class TileVectors {
 public:
  TileVectors() = default;
  TileVectors(const ModelShape& s, TileKind kind, int64_t first)
      : bias_(kind == TileKind::attention && s.query_key_value_bias),
        norm_(kind == TileKind::attention && s.query_key_norm != QueryKeyNorm::none),
        gate_up_(kind == TileKind::ffn && s.gate_up_bias),
        dim_(s.head_dim),
        query_(s.tile_query_width()),
        normed_(s.query_key_norm == QueryKeyNorm::head ? dim_ : query_),
        rows_(2 * s.ffn_columns),
        mean_(kind == TileKind::attention && s.nibble_kv() ? s.head_dim : 0),
        output_(kind == TileKind::attention ? s.level_blocks(s.tile_query_width()) : 0),
        down_(kind == TileKind::ffn || kind == TileKind::expert ? s.level_blocks(s.ffn_columns) : 0),
        at_(first) {}

 private:
  bool bias_ = false, norm_ = false, gate_up_ = false;
  int64_t dim_ = 0, query_ = 0, normed_ = 0, rows_ = 0, mean_ = 0, output_ = 0, down_ = 0;
  int64_t at_ = 0;
  int64_t take(int64_t floats) {
    at_ += floats * 4;
    return at_ - floats * 4;
  }

 public:
  int64_t query_bias = take(bias_ ? query_ : 0);
  int64_t key_bias = take(bias_ ? dim_ : 0);
  int64_t value_bias = take(bias_ ? dim_ : 0);
  int64_t query_norm = take(norm_ ? normed_ : 0);
  int64_t key_norm = take(norm_ ? dim_ : 0);
  int64_t gate_up_bias = take(gate_up_ ? rows_ : 0);
  int64_t key_mean = take(mean_);
  int64_t output_a4 = take(output_);
  int64_t down_a4 = take(down_);
  int64_t end = at_;
};

// Where each constant lies in the blob, in floats: the entries of layer 0, of layer 1, ..., of the model. In the order of
// their lines here, which is that of `layerConstants` and `modelConstants` in src/pack/tile-shape.ts.
class ConstantsLayout {
 public:
  ConstantsLayout() = default;
  explicit ConstantsLayout(const ModelShape& shape) : s_(shape) {}

 private:
  ModelShape s_{};
  int64_t at_ = 0;
  int64_t take(int64_t floats) {
    at_ += floats;
    return at_ - floats;
  }

 public:
  int64_t attention_norm = take(s_.input_norms ? s_.width : 0);
  int64_t ffn_norm = take(s_.input_norms ? s_.width : 0);
  int64_t attention_scale = take(s_.width);
  int64_t ffn_scale = take(s_.width);
  int64_t attention_output_norm = take(s_.output_norms ? s_.width : 0);
  int64_t ffn_output_norm = take(s_.output_norms ? s_.width : 0);
  int64_t output_bias = take(s_.output_bias ? s_.width : 0);
  int64_t down_bias = take(s_.down_bias ? s_.width : 0);
  int64_t router = take(s_.router_floats());
  int64_t attention_in_a4 = take(s_.level_blocks(s_.width));
  int64_t ffn_in_a4 = take(s_.level_blocks(s_.width));
  int64_t layer_floats = at_;

  int64_t final_norm = s_.layers * layer_floats;
  int64_t head_in_a4 = final_norm + s_.width;
  int64_t floats = head_in_a4 + s_.level_blocks(s_.width);
};

inline TilePanels tile_panels(const ModelShape& s, TileKind kind) {
  const int64_t q = s.tile_query_width();
  int64_t sizes[4][2];
  TilePanels out{};
  auto add = [&](int64_t rows, int64_t columns) {
    sizes[out.count][0] = rows;
    sizes[out.count][1] = columns;
    out.count++;
  };
  if (kind == TileKind::attention) {
    add(q, s.width);
    add(s.head_dim, s.width);
    add(s.head_dim, s.width);
    add(s.width, q);
  } else if (kind != TileKind::head) {
    add(2 * s.ffn_columns, s.width);
    add(s.width, s.ffn_columns);
  } else {
    add(s.head_rows, s.width);
  }
  int64_t offset = 0, end = 0;
  for (int i = 0; i < out.count; i++) {
    const int64_t rows = sizes[i][0], columns = sizes[i][1];
    const int64_t bytes = s.panel_bytes(rows, columns);
    out.panel[i] = Panel{offset, rows, round_up(rows, kBlockRows), columns, round_up(columns, kGroup), bytes};
    end = offset + bytes;
    offset = round_up(end, 64);
  }
  out.vectors = round_up(end, 64);
  out.tile_bytes = round_up(TileVectors(s, kind, out.vectors).end, kAlignment);
  return out;
}

}  // namespace potluck
