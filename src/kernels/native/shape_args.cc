#include "shape_args.h"

#include <cmath>
#include <cstdio>
#include <initializer_list>
#include <vector>

#include "napi_args.h"

namespace potluck {
namespace {

struct Field {
  const char* name;
  double low, high;
  bool real = false;  // not an integer
};

// Bounds that no product of which leaves int64; the order is that of `shapeNumbers` in src/kernels/shape-numbers.ts.
const Field kFields[] = {
    {"weights", 0, 1},
    {"width", 1, 1 << 17},
    {"layers", 1, 4096},
    {"queryHeads", 1, 4096},
    {"kvHeads", 1, 4096},
    {"headDim", 2, 1024},
    {"ffnWidth", 1, 1 << 20},
    {"vocabulary", 1, 1 << 24},
    {"context", 1, 1 << 24},
    {"normEpsilon", 0, 1, true},
    {"partsPerKvHead", 1, 4096},
    {"ffnColumns", 32, 1 << 20},
    {"headRows", 16, 1 << 24},
    {"hadamard", 0, 32},
    {"kvBits", 4, 32},
    {"norms.input", 0, 1},
    {"norms.output", 0, 1},
    {"norms.queryKey", 0, 2},
    {"biases.queryKeyValue", 0, 1},
    {"biases.output", 0, 1},
    {"biases.gateUp", 0, 1},
    {"biases.down", 0, 1},
    {"activation", 0, 1},
    {"scoreScale", 1e-30, 1e30, true},
    {"scoreCap", 0, 1e30, true},
    {"logitCap", 0, 1e30, true},
    {"residualScale", 1e-30, 1e30, true},
    {"experts.count", 0, 4096},
    {"experts.perToken", 0, 64},
    {"experts.width", 0, 1 << 20},
    {"experts.sharedWidth", 0, 1 << 20},
    {"experts.normalized", 0, 1},
    {"attentionTiles", 0, 1 << 24},
    {"kvPages", 0, 1 << 26},
    {"maxTokens", 1, 1 << 16},
    {"maxLogitRows", 1, 1 << 16},
    {"rotations", 0, 8},
};
constexpr size_t kFieldCount = sizeof kFields / sizeof kFields[0];
const Field kRotationFields[] = {{"rotation pairs", 1, 2048}, {"rotation magnitude", 1e-30, 1e30, true}};
const Field kLayerFields[] = {{"window", 0, 1 << 24}, {"rotation", -1, 7}, {"experts", 0, 1}};

// The numbers in order; false, with an exception pending, after the first that is not as its field says.
class Numbers {
 public:
  Numbers(napi_env env, const double* numbers, size_t count) : env_(env), numbers_(numbers), count_(count) {}

  bool next(const Field& field, double* out) {
    if (at_ == count_) {
      throw_range(env_, "numbers", "has not the right length");
      return false;
    }
    const double n = numbers_[at_++];
    if (n >= field.low && n <= field.high && (field.real || n == std::floor(n))) {
      *out = n;
      return true;
    }
    char text[128];
    std::snprintf(text, sizeof text, "%.17g is not %s from %g to %g", n, field.real ? "a number" : "an integer", field.low,
                  field.high);
    throw_range(env_, field.name, text);
    return false;
  }
  bool done() const { return at_ == count_; }

 private:
  napi_env env_;
  const double* numbers_;
  size_t count_, at_ = 0;
};

bool consistent_features(const ModelShape& s) {
  if (s.query_key_norm == QueryKeyNorm::whole && s.width < kSquareWords) return false;
  for (const Rotation& r : s.rotations)
    if (r.pairs * 2 > s.head_dim) return false;
  for (const LayerFeatures& f : s.layer_features)
    if (f.rotation >= int64_t(s.rotations.size()) || (f.experts && (s.experts == 0 || s.expert_width == 0))) return false;
  if (s.experts == 0) return s.experts_per_token == 0 && s.expert_width == 0 && s.shared_width == 0;
  return s.experts_per_token >= 1 && s.experts_per_token <= s.experts;
}

bool consistent(napi_env env, const ModelShape& s) {
  if (s.query_heads % s.kv_heads != 0 || (s.query_heads / s.kv_heads) % s.parts_per_kv_head != 0)
    throw_range(env, "queryHeads", "is not a multiple of kvHeads * partsPerKvHead");
  else if (s.head_dim % 2 != 0)
    throw_range(env, "headDim", "is odd");
  else if (s.ffn_columns % 32 != 0)
    throw_range(env, "ffnColumns", "is not a multiple of 32");
  else if (s.head_rows % 16 != 0)
    throw_range(env, "headRows", "is not a multiple of 16");
  else if (s.hadamard != 0 && (s.hadamard != 32 || s.weights != Weights::w4))
    throw_range(env, "hadamard", "is not 0, or 32 with w4 weights");
  else if (s.kv_bits != 4 && s.kv_bits != 8 && s.kv_bits != 16 && s.kv_bits != 32)
    throw_range(env, "kvBits", "is not 4, 8, 16 or 32");
  else if (!consistent_features(s))
    throw_range(env, "numbers", "features of rotations, layers or experts contradict each other");
  else
    return true;
  return false;
}

}  // namespace

bool read_shape(napi_env env, napi_value numbers, ModelShape* s, ModelLimits* limits) {
  void* data;
  size_t count;
  if (!read_typed(env, numbers, "numbers", napi_float64_array, &data, &count)) return false;
  Numbers from(env, static_cast<double*>(data), count);
  double n[kFieldCount];
  for (size_t i = 0; i < kFieldCount; i++)
    if (!from.next(kFields[i], &n[i])) return false;
  size_t at = 0;
  auto integer = [&] { return int64_t(n[at++]); };
  auto real = [&] { return float(n[at++]); };
  s->weights = Weights(integer());
  for (int64_t* field : {&s->width, &s->layers, &s->query_heads, &s->kv_heads, &s->head_dim, &s->ffn_width,
                         &s->vocabulary, &s->context})
    *field = integer();
  s->norm_epsilon = real();
  for (int64_t* field : {&s->parts_per_kv_head, &s->ffn_columns, &s->head_rows, &s->hadamard, &s->kv_bits}) *field = integer();
  s->input_norms = integer();
  s->output_norms = integer();
  s->query_key_norm = QueryKeyNorm(integer());
  for (bool* field : {&s->query_key_value_bias, &s->output_bias, &s->gate_up_bias, &s->down_bias}) *field = integer();
  s->activation = Activation(integer());
  for (float* field : {&s->score_scale, &s->score_cap, &s->logit_cap, &s->residual_scale}) *field = real();
  for (int64_t* field : {&s->experts, &s->experts_per_token, &s->expert_width, &s->shared_width}) *field = integer();
  s->normalized_experts = integer();
  for (int64_t* field : {&limits->attention_tiles, &limits->kv_pages, &limits->max_tokens, &limits->max_logit_rows})
    *field = integer();
  const int64_t rotations = integer();
  for (int64_t i = 0; i < rotations; i++) {
    double pairs, magnitude;
    if (!from.next(kRotationFields[0], &pairs) || !from.next(kRotationFields[1], &magnitude)) return false;
    s->rotations.push_back(Rotation{int64_t(pairs), float(magnitude)});
  }
  s->any_dense = false;
  for (int64_t layer = 0; layer < s->layers; layer++) {
    double f[3];
    for (int i = 0; i < 3; i++)
      if (!from.next(kLayerFields[i], &f[i])) return false;
    s->layer_features.push_back(LayerFeatures{int64_t(f[0]), int64_t(f[1]), f[2] != 0});
    if (f[2] == 0) s->any_dense = true;
  }
  if (!from.done()) {
    throw_range(env, "numbers", "has not the right length");
    return false;
  }
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
  auto add = [&](std::initializer_list<int64_t> numbers) {
    for (int64_t n : numbers) out.push_back(double(n));
  };
  for (TileKind kind : {TileKind::attention, TileKind::ffn, TileKind::expert, TileKind::head}) {
    const TilePanels panels = tile_panels(s, kind);
    const TileVectors v(s, kind, panels.vectors);
    add({s.tile_count(kind), panels.tile_bytes, panels.count});
    for (int i = 0; i < panels.count; i++) {
      const Panel& p = panels.panel[i];
      add({p.offset, p.rows, p.padded_rows, p.columns, p.padded_columns, p.bytes});
    }
    add({v.query_bias, v.key_bias, v.value_bias, v.query_norm, v.key_norm, v.gate_up_bias, v.key_mean, v.output_a4,
         v.down_a4});
  }
  const ConstantsLayout c(s);
  add({s.padded_vocabulary(), s.kv_page_bytes(limits.attention_tiles), c.attention_norm, c.ffn_norm, c.attention_scale,
       c.ffn_scale, c.attention_output_norm, c.ffn_output_norm, c.output_bias, c.down_bias, c.router, c.attention_in_a4,
       c.ffn_in_a4, c.layer_floats, c.final_norm, c.head_in_a4, c.floats});
  napi_value buffer, result;
  void* data;
  if (napi_create_arraybuffer(env, out.size() * 8, &data, &buffer) != napi_ok ||
      napi_create_typedarray(env, napi_float64_array, out.size(), buffer, 0, &result) != napi_ok)
    return nullptr;
  std::copy(out.begin(), out.end(), static_cast<double*>(data));
  return result;
}

}  // namespace potluck
