// What JavaScript holds of a backend: pools and open models.
#pragma once
#include <node_api.h>

#include <limits>
#include <memory>
#include <vector>

#include "executor.h"

namespace potluck {

constexpr napi_type_tag kPoolTag = {0x6c756b706f6f6c31, 0x9d4b1c0e7a55e201};
constexpr napi_type_tag kModelTag = {0x6c756b6d6f64656c, 0x3f0c27b15ad8e402};

// A pool as JavaScript holds it, with the way back to the JavaScript thread.
struct PoolHandle {
  std::shared_ptr<Engine> engine;
  napi_env env = nullptr;
  napi_threadsafe_function report = nullptr;

  // Ends the threads; on the JavaScript thread.
  void close();
  ~PoolHandle() { close(); }
};

// Cleanup hook of an environment: closes the PoolHandle.
void close_at_exit(void* pool);

struct ModelHandle {
  std::shared_ptr<Model> model;
  std::shared_ptr<PoolHandle> pool;
  // The last program, and what it was read from: a device with its weights in memory runs the same one in every pass.
  std::shared_ptr<const Program> program;
  std::vector<double> words;
  // Seconds from nearly_done() to the end of the last run that had it; infinite before.
  double head_seconds = std::numeric_limits<double>::infinity();

  // Makes `program` of the words. False with a pending exception.
  bool read(napi_env env, const double* from, size_t count);
};

// Exactly `count` arguments of a call, undefined where there were fewer.
bool arguments(napi_env env, napi_callback_info info, size_t count, napi_value* out);

// An open model that does not run. False with a pending exception.
bool read_idle_model(napi_env env, napi_value value, std::shared_ptr<ModelHandle>* out);

}  // namespace potluck
