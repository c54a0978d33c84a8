#include "shape_args.h"

#include <cmath>
#include <vector>

#include "napi_args.h"

namespace potluck {
namespace {

struct Field {
  const char* name;
  int64_t low, high;
};

// Bounds that no product of which leaves int64.
const Field kFields[] = {
    {"weights", 0, 1},
    {"width", 1, 1 << 17},
    {"layers", 1, 4096},
    {"queryHeads", 1, 4096},
    {"kvHeads", 1, 4096},
    {"headDim", 2, 4096},
    {"ffnWidth", 1, 1 << 20},
    {"vocabulary", 1, 1 << 24},
    {"context", 1, 1 << 24},
    {"normEpsilon", 0, 0},  // the one that is not an integer
    {"partsPerKvHead", 1, 4096},
    {"ffnColumns", 32, 1 << 20},
    {"headRows", 16, 1 << 24},
    {"attentionTiles", 0, 1 << 24},
    {"kvPages", 0, 1 << 26},
    {"maxTokens", 1, 1 << 16},
    {"maxLogitRows", 1, 1 << 16},
};
constexpr size_t kFieldCount = sizeof kFields / sizeof kFields[0];
constexpr size_t kEpsilonField = 9;

bool consistent(napi_env env, const ModelShape& s) {
  if (s.query_heads % s.kv_heads != 0 || (s.query_heads / s.kv_heads) % s.parts_per_kv_head != 0)
    throw_range(env, "queryHeads", "is not a multiple of kvHeads * partsPerKvHead");
  else if (s.head_dim % 2 != 0)
    throw_range(env, "headDim", "is odd");
  else if (s.ffn_columns % 32 != 0)
    throw_range(env, "ffnColumns", "is not a multiple of 32");
  else if (s.head_rows % 16 != 0)
    throw_range(env, "headRows", "is not a multiple of 16");
  else
    return true;
  return false;
}

}  // namespace

bool read_shape(napi_env env, napi_value numbers, ModelShape* s, ModelLimits* limits) {
  void* data;
  size_t count;
  if (!read_typed(env, numbers, "numbers", napi_float64_array, 8, &data, &count)) return false;
  if (count != kFieldCount) {
    throw_range(env, "numbers", "has not the right length");
    return false;
  }
  const double* from = static_cast<double*>(data);
  int64_t n[kFieldCount];
  for (size_t i = 0; i < kFieldCount; i++) {
    const Field& field = kFields[i];
    if (i == kEpsilonField) {
      if (from[i] >= 0 && from[i] < 1) continue;
      throw_range(env, field.name, "is not from 0 to 1");
      return false;
    }
    if (!(from[i] >= double(field.low) && from[i] <= double(field.high)) || from[i] != std::floor(from[i])) {
      char text[128];
      std::snprintf(text, sizeof text, "%.17g is not an integer from %lld to %lld", from[i], (long long)field.low,
                    (long long)field.high);
      throw_range(env, field.name, text);
      return false;
    }
    n[i] = int64_t(from[i]);
  }
  *s = ModelShape{Weights(n[0]), n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8], float(from[kEpsilonField]),
                  n[10], n[11], n[12]};
  *limits = ModelLimits{n[13], n[14], n[15], n[16]};
  return consistent(env, *s);
}

napi_value tile_shape_call(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument;
  ModelShape s;
  ModelLimits limits;
  if (napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr) != napi_ok ||
      !read_shape(env, argument, &s, &limits))
    return nullptr;
  std::vector<double> out;
  for (TileKind kind : {TileKind::attention, TileKind::ffn, TileKind::head}) {
    const TilePanels panels = tile_panels(s, kind);
    out.insert(out.end(), {double(s.tile_count(kind)), double(panels.tile_bytes), double(panels.count)});
    for (int i = 0; i < panels.count; i++) {
      const Panel& p = panels.panel[i];
      out.insert(out.end(), {double(p.offset), double(p.rows), double(p.padded_rows), double(p.columns),
                             double(p.padded_columns), double(p.bytes)});
    }
  }
  const ConstantsLayout constants(s);
  out.insert(out.end(), {double(s.padded_vocabulary()), double(s.kv_page_bytes(limits.attention_tiles)),
                         double(constants.attention_norm), double(constants.ffn_norm), double(constants.attention_scale),
                         double(constants.ffn_scale), double(constants.layer_floats), double(constants.final_norm),
                         double(constants.floats)});
  napi_value buffer, result;
  void* data;
  if (napi_create_arraybuffer(env, out.size() * 8, &data, &buffer) != napi_ok ||
      napi_create_typedarray(env, napi_float64_array, out.size(), buffer, 0, &result) != napi_ok)
    return nullptr;
  std::copy(out.begin(), out.end(), static_cast<double*>(data));
  return result;
}

}  // namespace potluck
