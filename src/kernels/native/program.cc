#include "program.h"

#include <algorithm>
#include <cmath>

#include "napi_args.h"

namespace potluck {
namespace {

constexpr size_t kMostWords = size_t(1) << 22;

class Reader {
 public:
  Reader(napi_env env, const double* words, size_t count) : env_(env), words_(words), count_(count) {}

  bool done() const { return at_ == count_; }

  bool next(const char* name, int64_t low, int64_t high, int64_t* out) {
    if (at_ == count_) {
      throw_range(env_, name, "the program ends before it");
      return false;
    }
    const double word = words_[at_++];
    if (!(word >= double(low) && word <= double(high)) || word != std::floor(word)) {
      char text[160];
      std::snprintf(text, sizeof text, "%.17g, word %zu of the program, is not an integer from %lld to %lld", word, at_ - 1,
                    (long long)low, (long long)high);
      throw_range(env_, name, text);
      return false;
    }
    *out = int64_t(word);
    return true;
  }

 private:
  napi_env env_;
  const double* words_;
  size_t count_, at_ = 0;
};

bool read_tiles(napi_env env, Reader& reader, const Model& model, TileKind kind, int64_t count, Program* out) {
  const TilePanels& panels = kind == TileKind::attention ? model.attention_panels
                             : kind == TileKind::ffn     ? model.ffn_panels
                             : kind == TileKind::expert  ? model.expert_panels
                                                         : model.head_panels;
  const int64_t last_offset = int64_t(model.weights_bytes) - panels.tile_bytes;
  const int64_t last_slot = kind == TileKind::attention ? model.limits.attention_tiles - 1
                            : kind == TileKind::ffn     ? 0
                            : kind == TileKind::expert  ? model.shape.experts - 1
                                                        : model.shape.padded_vocabulary() - model.shape.head_rows;
  const size_t first = out->tiles.size();
  for (int64_t i = 0; i < count; i++) {
    int64_t offset, slot;
    if (!reader.next("tile offset", 0, last_offset, &offset) || !reader.next("tile slot", 0, last_slot, &slot))
      return false;
    if (offset % 64 != 0) {
      throw_range(env, "tile offset", "is not a multiple of 64");
      return false;
    }
    if (kind == TileKind::head && slot % model.shape.head_rows != 0) {
      throw_range(env, "tile slot", "is not the first row of a head tile");
      return false;
    }
    out->tiles.push_back(PlacedTile{model.weights + offset, slot});
  }
  if (kind == TileKind::ffn || kind == TileKind::expert) return true;
  // Two tiles of one slot in one step would write the same keys or logits at the same time.
  std::vector<int64_t> slots;
  for (size_t i = first; i < out->tiles.size(); i++) slots.push_back(out->tiles[i].slot);
  std::sort(slots.begin(), slots.end());
  if (std::adjacent_find(slots.begin(), slots.end()) != slots.end()) {
    throw_range(env, "tile slot", "is twice in one step");
    return false;
  }
  return true;
}

// Whether the model has what an op is for, at that place.
bool belongs(napi_env env, Op op, int64_t layer, int64_t half, const ModelShape& s) {
  const bool squares = op == Op::squares || op == Op::square_norms;
  if (squares && (half != 0 || s.query_key_norm != QueryKeyNorm::whole))
    throw_range(env, "op", "squares are of the attention half of a model that norms all heads as one");
  else if (op == Op::expert_tiles && (half != 1 || !s.layer_features[size_t(layer)].experts))
    throw_range(env, "op", "expert tiles are of the FFN half of a layer with experts");
  else
    return true;
  return false;
}

}  // namespace

bool read_program(napi_env env, const Model& model, const double* words, size_t count, Program* out) {
  if (count > kMostWords) {
    throw_range(env, "program", "is too long");
    return false;
  }
  Reader reader(env, words, count);
  while (!reader.done()) {
    int64_t op, layer, half, tiles;
    if (!reader.next("op", 0, 7, &op) || !reader.next("layer", 0, model.shape.layers - 1, &layer) ||
        !reader.next("half", 0, 1, &half))
      return false;
    if (!belongs(env, Op(op), layer, half, model.shape)) return false;
    const TileKind kind = Op(op) == Op::head_tiles     ? TileKind::head
                          : Op(op) == Op::expert_tiles ? TileKind::expert
                          : half == 0                  ? TileKind::attention
                                                       : TileKind::ffn;
    const bool takes_tiles =
        Op(op) == Op::tiles || Op(op) == Op::head_tiles || Op(op) == Op::expert_tiles || Op(op) == Op::squares;
    if (!reader.next("tile count", 0, takes_tiles ? model.shape.step_tiles(kind) : 0, &tiles)) return false;
    out->steps.push_back(Step{Op(op), layer, int(half), out->tiles.size(), size_t(tiles)});
    if (!read_tiles(env, reader, model, kind, tiles, out)) return false;
  }
  return true;
}

}  // namespace potluck
