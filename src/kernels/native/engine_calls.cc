// The calls that make up a backend: pools, models and batches; run_call.cc has the runs.
#include "engine_calls.h"

#include <algorithm>
#include <cmath>
#include <system_error>

#include "batch_args.h"
#include "dispatch.h"
#include "engine_handles.h"
#include "logit_calls.h"
#include "memory.h"
#include "run_call.h"
#include "shape_args.h"
#include "wrapped.h"

namespace potluck {
namespace {

constexpr int kMostThreads = 256;

napi_value create_pool(napi_env env, napi_callback_info info) {
  napi_value argument[2], name, object;
  int64_t threads;
  std::string kernel;
  if (!arguments(env, info, 2, argument) || !read_integer(env, argument[0], "threads", 1, kMostThreads, &threads) ||
      !read_string(env, argument[1], "kernel", 64, &kernel))
    return nullptr;
  const Kernels* kernels = select_kernels(env, kernel);
  if (kernels == nullptr) return nullptr;
  auto handle = std::make_shared<PoolHandle>();
  try {
    handle->engine = std::make_shared<Engine>(int(threads), kernels);
  } catch (const std::system_error&) {
    throw_range(env, "threads", "the system refuses that many");
    return nullptr;
  }
  handle->env = env;
  napi_create_string_utf8(env, "potluck run", NAPI_AUTO_LENGTH, &name);
  if (napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, nullptr, report_run,
                                      &handle->report) != napi_ok) {
    throw_range(env, "createPool", "no thread-safe function");
    return nullptr;
  }
  napi_unref_threadsafe_function(env, handle->report);
  napi_add_env_cleanup_hook(env, close_at_exit, handle.get());
  if (!wrap_object(env, handle, &kPoolTag, &object)) return nullptr;
  napi_create_string_utf8(env, kernels->name, NAPI_AUTO_LENGTH, &name);
  napi_set_named_property(env, object, "kernel", name);
  return object;
}

napi_value close_pool(napi_env env, napi_callback_info info) {
  napi_value argument;
  std::shared_ptr<PoolHandle> pool;
  if (!arguments(env, info, 1, &argument) || !unwrap_object(env, argument, "pool", &kPoolTag, &pool)) return nullptr;
  if (pool->engine->pool.busy()) {
    throw_range(env, "pool", "runs a job");
    return nullptr;
  }
  pool->close();
  return nullptr;
}

// weigh(pool, logits, max, inverse, weights)
napi_value weigh(napi_env env, napi_callback_info info) {
  napi_value argument[5];
  std::shared_ptr<PoolHandle> pool;
  if (!arguments(env, info, 5, argument) || !unwrap_object(env, argument[0], "pool", &kPoolTag, &pool)) return nullptr;
  return weigh_row(env, *pool->engine->kernels, argument + 1);
}

// Copies the constants, and checks that every scale is a power of two whose inverse is finite.
bool read_constants(napi_env env, napi_value value, Model* model) {
  uint8_t* data;
  size_t bytes;
  const ModelShape& s = model->shape;
  model->constants_layout = ConstantsLayout(s);
  const size_t floats = size_t(model->constants_layout.floats);
  if (!read_buffer(env, value, "constants", floats * 4, &data, &bytes)) return false;
  const float* from = reinterpret_cast<const float*>(data);
  model->constants.assign(from, from + floats);
  model->inverses.resize(size_t(s.layers * 2 * s.width));
  for (int64_t layer = 0; layer < s.layers; layer++)
    for (int half = 0; half < 2; half++)
      for (int64_t i = 0; i < s.width; i++) {
        const float scale = model->scale(layer, half)[i];
        int exponent;
        if (!(scale >= 0x1p-120f && scale <= 0x1p120f) || std::frexp(scale, &exponent) != 0.5f) {
          throw_range(env, "constants", "a fixed-point scale is not a power of two from 2^-120 to 2^120");
          return false;
        }
        model->inverses[size_t((layer * 2 + half) * s.width + i)] = s.residual_scale / scale;
      }
  return true;
}

// The largest float that is not above (2^31 - 1) / tiles.
float fixed_limit(int64_t tiles) {
  const double exact = 2147483647.0 / double(tiles);
  const float near = float(exact);
  return double(near) > exact ? std::nextafter(near, 0.0f) : near;
}

bool hold(Model* model, const void* at) {
  if (!hold_memory(at)) return false;
  model->held.push_back(at);
  return true;
}

bool pass_buffer(napi_env env, napi_value result, const char* name, int64_t floats, Model* model, void** data) {
  napi_value buffer;
  if (!create_region(env, size_t(floats) * 4, &buffer, data)) return false;
  return hold(model, *data) && napi_set_named_property(env, result, name, buffer) == napi_ok;
}

// createModel(pool, numbers, constants, weights)
//   -> {model, residual, partial, logits, routes, scratchBytes}, four of them ArrayBuffers
napi_value create_model(napi_env env, napi_callback_info info) {
  napi_value argument[4];
  auto handle = std::make_shared<ModelHandle>();
  auto model = std::make_shared<Model>();
  uint8_t* weights;
  if (!arguments(env, info, 4, argument) || !unwrap_object(env, argument[0], "pool", &kPoolTag, &handle->pool) ||
      !read_shape(env, argument[1], &model->shape, &model->limits) ||
      !read_constants(env, argument[2], model.get()) ||
      !read_buffer(env, argument[3], "weights", 1, &weights, &model->weights_bytes))
    return nullptr;
  if (handle->pool->report == nullptr) {
    throw_range(env, "pool", "is closed");
    return nullptr;
  }
  const ModelShape& s = model->shape;
  model->weights = weights;
  if (!hold(model.get(), weights)) {
    throw_range(env, "weights", "does not come from allocate()");
    return nullptr;
  }
  model->engine = handle->pool->engine;
  model->attention_panels = tile_panels(s, TileKind::attention);
  model->ffn_panels = tile_panels(s, TileKind::ffn);
  model->expert_panels = tile_panels(s, TileKind::expert);
  model->head_panels = tile_panels(s, TileKind::head);
  model->attention_vectors = TileVectors(s, TileKind::attention, model->attention_panels.vectors);
  model->ffn_vectors = TileVectors(s, TileKind::ffn, model->ffn_panels.vectors);
  model->expert_vectors = TileVectors(s, TileKind::expert, model->ffn_panels.vectors);
  for (int half = 0; half < 2; half++) model->limit[half] = fixed_limit(s.summed_tiles(half));
  const std::string problem = model->reserve();
  if (!problem.empty()) {
    throw_range(env, "createModel", problem.c_str());
    return nullptr;
  }
  napi_value result, object;
  void *residual, *partial, *logits, *routes;
  napi_create_object(env, &result);
  const int64_t channels = model->limits.max_tokens * s.width;
  if (!pass_buffer(env, result, "residual", channels, model.get(), &residual) ||
      !pass_buffer(env, result, "partial", channels, model.get(), &partial) ||
      !pass_buffer(env, result, "logits", model->limits.max_logit_rows * s.padded_vocabulary(), model.get(), &logits) ||
      !pass_buffer(env, result, "routes", model->limits.max_tokens * std::max<int64_t>(1, s.experts_per_token),
                   model.get(), &routes))
    return nullptr;
  model->residual = static_cast<float*>(residual);
  model->partial = static_cast<int32_t*>(partial);
  model->logits = static_cast<float*>(logits);
  model->routes = static_cast<int32_t*>(routes);
  napi_value scratch;
  napi_create_double(env, double(model->scratch_bytes()), &scratch);
  napi_set_named_property(env, result, "scratchBytes", scratch);
  handle->model = std::move(model);
  if (!wrap_object(env, handle, &kModelTag, &object)) return nullptr;
  napi_set_named_property(env, result, "model", object);
  return result;
}

// setConstants(model, constants)
napi_value set_constants(napi_env env, napi_callback_info info) {
  napi_value argument[2];
  std::shared_ptr<ModelHandle> handle;
  if (!arguments(env, info, 2, argument) || !read_idle_model(env, argument[0], &handle)) return nullptr;
  read_constants(env, argument[1], handle->model.get());
  return nullptr;
}

napi_value close_model(napi_env env, napi_callback_info info) {
  napi_value argument;
  std::shared_ptr<ModelHandle> handle;
  if (!arguments(env, info, 1, &argument) || !read_idle_model(env, argument, &handle)) return nullptr;
  handle->model->close();
  return nullptr;
}

// setBatch(model, positions, sequences, pages, pageTableStarts, logitRows, lengths, frequencies); see batch_args.h.
napi_value set_batch(napi_env env, napi_callback_info info) {
  napi_value argument[8];
  std::shared_ptr<ModelHandle> handle;
  if (!arguments(env, info, 8, argument) || !read_idle_model(env, argument[0], &handle)) return nullptr;
  Batch batch;
  if (read_batch(env, argument + 1, *handle->model, &batch)) handle->model->batch = std::move(batch);
  return nullptr;
}

}  // namespace

bool register_engine(napi_env env, napi_value exports) {
  return set_function(env, exports, "createPool", create_pool) && set_function(env, exports, "closePool", close_pool) &&
         set_function(env, exports, "createModel", create_model) &&
         set_function(env, exports, "closeModel", close_model) &&
         set_function(env, exports, "setConstants", set_constants) && set_function(env, exports, "setBatch", set_batch) &&
         set_function(env, exports, "run", run_call) && set_function(env, exports, "weigh", weigh) &&
         set_function(env, exports, "greatest", greatest_call) && set_function(env, exports, "tileShape", tile_shape_call);
}

}  // namespace potluck
