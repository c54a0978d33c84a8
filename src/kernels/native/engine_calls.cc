// The calls that make up a backend: pools, models, batches and runs.
#include "engine_calls.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <new>
#include <system_error>
#include <thread>

#include "batch_args.h"
#include "dispatch.h"
#include "executor.h"
#include "logit_calls.h"
#include "memory.h"
#include "program.h"
#include "shape_args.h"
#include "wrapped.h"

namespace potluck {
namespace {

constexpr napi_type_tag kPoolTag = {0x6c756b706f6f6c31, 0x9d4b1c0e7a55e201};
constexpr napi_type_tag kModelTag = {0x6c756b6d6f64656c, 0x3f0c27b15ad8e402};
constexpr int kMostThreads = 256;

using Clock = std::chrono::steady_clock;

// A pool as JavaScript holds it, with the way back to the JavaScript thread.
struct PoolHandle {
  std::shared_ptr<Engine> engine;
  napi_env env = nullptr;
  napi_threadsafe_function report = nullptr;

  // Ends the threads; on the JavaScript thread.
  void close();
  ~PoolHandle() { close(); }
};

void close_at_exit(void* data) { static_cast<PoolHandle*>(data)->close(); }

void PoolHandle::close() {
  if (report == nullptr) return;
  engine->pool.close();
  napi_remove_env_cleanup_hook(env, close_at_exit, this);
  napi_release_threadsafe_function(report, napi_tsfn_release);
  report = nullptr;
}

// From nearly_done() to the end, at most, where JavaScript wakes for it.
constexpr double kMostAhead = 150e-6;

struct ModelHandle {
  std::shared_ptr<Model> model;
  std::shared_ptr<PoolHandle> pool;
  // The last program, and what it was read from: a device with its weights in memory runs the same one in every pass.
  std::shared_ptr<const Program> program;
  std::vector<double> words;
  // Seconds from nearly_done() to the end of the last run that had it; infinite before.
  double head_seconds = std::numeric_limits<double>::infinity();

  // False with a pending exception.
  bool read(napi_env env, const double* from, size_t count) {
    if (program && words.size() == count && std::equal(words.begin(), words.end(), from)) return true;
    Program made;
    program.reset();
    if (!read_program(env, *model, from, count, &made)) return false;
    words.assign(from, from + count);
    program = std::make_shared<const Program>(std::move(made));
    return true;
  }
};

// One run on its way: lives from submit to its last call on the JavaScript thread.
struct Run final : Job {
  explicit Run(std::shared_ptr<ModelHandle> h) : Job(h->model, h->program), handle(std::move(h)) {}

  // The JavaScript thread sleeps while threads compute, and takes 50 us to wake: as long as the head of a small model. It
  // wakes then, and waits for the end.
  void nearly_done() override {
    if (early_called) return;
    early_called = true;
    head_from = Clock::now();
    if (!wakes_early) return;
    early = true;
    napi_call_threadsafe_function(report, this, napi_tsfn_nonblocking);
  }

  void done() override {
    ended = Clock::now();
    // Nothing of this run may be touched behind this line where JavaScript waits for it.
    if (state.exchange(State::ended) == State::running) napi_call_threadsafe_function(report, this, napi_tsfn_nonblocking);
  }

  // On the JavaScript thread, after nearly_done(): whether the run has ended, now or soon. Sets *called where done() calls, too.
  bool wait_for_end(bool* called) {
    State now = State::running;
    *called = !state.compare_exchange_strong(now, State::awaited);
    if (*called) return true;
    const Clock::time_point until = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(kMostAhead));
    while (state.load() != State::ended && Clock::now() < until) std::this_thread::yield();
    now = State::awaited;
    return !state.compare_exchange_strong(now, State::running);
  }

  enum class State { running, awaited, ended };
  std::shared_ptr<ModelHandle> handle;
  napi_threadsafe_function report = nullptr;
  napi_deferred deferred = nullptr;
  std::atomic<State> state{State::running};
  bool early_called = false;  // of the thread that computes the head: a program may have two
  bool wakes_early = false;
  bool early = false;  // a call was made before the end, and was not heard yet
  bool reported = false;
  Clock::time_point started, head_from{}, ended;
};

double seconds_between(Clock::time_point from, Clock::time_point to) { return std::chrono::duration<double>(to - from).count(); }

// On the JavaScript thread; env is null when it is going away.
void resolve_run(napi_env env, Run* run) {
  run->reported = true;
  if (run->head_from != Clock::time_point()) run->handle->head_seconds = seconds_between(run->head_from, run->ended);
  run->model().running = false;
  run->model().batch.rotated = true;
  if (env == nullptr) return;
  napi_unref_threadsafe_function(env, run->report);
  napi_value result, number;
  napi_create_object(env, &result);
  napi_create_double(env, seconds_between(run->started, run->ended) * 1e6, &number);
  napi_set_named_property(env, result, "computeMicroseconds", number);
  napi_create_double(env, double(run->saturated()), &number);
  napi_set_named_property(env, result, "saturated", number);
  napi_resolve_deferred(env, run->deferred, result);
}

// On the JavaScript thread: after a run, and before its end where it wakes early.
void report_run(napi_env env, napi_value, void*, void* data) {
  Run* run = static_cast<Run*>(data);
  if (run->early) {
    run->early = false;
    bool called;
    if (!run->wait_for_end(&called)) return;
    resolve_run(env, run);
    if (called) return;
  }
  if (!run->reported) resolve_run(env, run);
  delete run;
}

bool arguments(napi_env env, napi_callback_info info, size_t count, napi_value* out) {
  return napi_get_cb_info(env, info, &count, out, nullptr, nullptr) == napi_ok;
}

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

// An open model that does not run.
bool read_idle_model(napi_env env, napi_value value, std::shared_ptr<ModelHandle>* out) {
  if (!unwrap_object(env, value, "model", &kModelTag, out)) return false;
  if ((*out)->model->closed) {
    throw_range(env, "model", "is closed");
    return false;
  }
  if ((*out)->model->running) {
    throw_range(env, "model", "runs a job");
    return false;
  }
  return true;
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

// run(model, words, eager): Promise<{computeMicroseconds, saturated}>; see program.h for the words.
napi_value run(napi_env env, napi_callback_info info) {
  napi_value argument[3], promise;
  bool eager;
  std::shared_ptr<ModelHandle> handle;
  void* words;
  size_t count;
  if (!arguments(env, info, 3, argument) || !read_idle_model(env, argument[0], &handle) ||
      !read_typed(env, argument[1], "program", napi_float64_array, 8, &words, &count) ||
      !read_bool(env, argument[2], "eager", &eager) ||
      !handle->read(env, static_cast<double*>(words), count))
    return nullptr;
  PoolHandle& pool = *handle->pool;
  if (pool.report == nullptr || pool.engine->pool.busy()) {
    throw_range(env, "pool", pool.report == nullptr ? "is closed" : "runs another job");
    return nullptr;
  }
  auto job = std::make_unique<Run>(handle);
  job->report = pool.report;
  if (napi_create_promise(env, &job->deferred, &promise) != napi_ok) return nullptr;
  napi_ref_threadsafe_function(env, pool.report);
  handle->model->running = true;
  // A core of its own for the JavaScript thread, or it would take one from those that compute.
  static const unsigned cores = std::thread::hardware_concurrency();
  const bool spare = unsigned(pool.engine->pool.threads()) < cores;
  job->wakes_early = eager && spare && handle->head_seconds < kMostAhead;
  job->started = Clock::now();
  pool.engine->pool.set_eager(eager);
  pool.engine->pool.submit(job.release());
  return promise;
}

}  // namespace

bool register_engine(napi_env env, napi_value exports) {
  return set_function(env, exports, "createPool", create_pool) && set_function(env, exports, "closePool", close_pool) &&
         set_function(env, exports, "createModel", create_model) &&
         set_function(env, exports, "closeModel", close_model) &&
         set_function(env, exports, "setConstants", set_constants) && set_function(env, exports, "setBatch", set_batch) &&
         set_function(env, exports, "run", run) && set_function(env, exports, "weigh", weigh) &&
         set_function(env, exports, "greatest", greatest_call) && set_function(env, exports, "tileShape", tile_shape_call);
}

}  // namespace potluck
