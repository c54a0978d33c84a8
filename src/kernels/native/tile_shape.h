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
#include <cstddef>
#include <cstdint>

namespace potluck {

enum class Weights { w4 = 0, bf16 = 1 };
enum class TileKind { attention = 0, ffn = 1, head = 2 };

constexpr int64_t kAlignment = 4096;
constexpr int64_t kBlockRows = 16;
constexpr int64_t kGroup = 32;
constexpr int64_t kW4GroupBytes = 256 + 32;
constexpr int64_t kPagePositions = 16;

constexpr int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

struct ModelShape {
  Weights weights;
  int64_t width, layers, query_heads, kv_heads, head_dim, ffn_width, vocabulary, context;
  float norm_epsilon;
  int64_t parts_per_kv_head, ffn_columns, head_rows;

  int64_t tile_query_heads() const { return query_heads / kv_heads / parts_per_kv_head; }
  int64_t tile_query_width() const { return tile_query_heads() * head_dim; }

  int64_t tile_count(TileKind kind) const {
    if (kind == TileKind::attention) return kv_heads * parts_per_kv_head;
    if (kind == TileKind::ffn) return (ffn_width + ffn_columns - 1) / ffn_columns;
    return (vocabulary + head_rows - 1) / head_rows;
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
  // Bytes of one stored key or value channel: halves for w4, floats for bf16 (which is for checking).
  int64_t kv_channel_bytes() const { return weights == Weights::w4 ? 2 : 4; }
  // A tile's part of a page: keys and values of kPagePositions positions.
  int64_t kv_part_bytes() const { return 2 * kPagePositions * head_dim * kv_channel_bytes(); }
  int64_t kv_page_bytes(int64_t attention_tiles) const { return attention_tiles * kv_part_bytes(); }
};

struct Panel {
  int64_t offset, rows, padded_rows, columns, padded_columns, bytes;
};

struct TilePanels {
  int count;
  Panel panel[4];
  int64_t tile_bytes;
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
  int64_t attention_norm = take(s_.width);
  int64_t ffn_norm = take(s_.width);
  int64_t attention_scale = take(s_.width);
  int64_t ffn_scale = take(s_.width);
  int64_t layer_floats = at_;

  int64_t final_norm = s_.layers * layer_floats;
  int64_t floats = final_norm + s_.width;
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
  } else if (kind == TileKind::ffn) {
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
  out.tile_bytes = round_up(end, kAlignment);
  return out;
}

}  // namespace potluck
