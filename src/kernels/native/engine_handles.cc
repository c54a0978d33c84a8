#include "engine_handles.h"

#include <algorithm>

#include "napi_args.h"
#include "program.h"
#include "wrapped.h"

namespace potluck {

void close_at_exit(void* pool) { static_cast<PoolHandle*>(pool)->close(); }

void PoolHandle::close() {
  if (report == nullptr) return;
  engine->pool.close();
  napi_remove_env_cleanup_hook(env, close_at_exit, this);
  napi_release_threadsafe_function(report, napi_tsfn_release);
  report = nullptr;
}

bool ModelHandle::read(napi_env env, const double* from, size_t count) {
  if (program && words.size() == count && std::equal(words.begin(), words.end(), from)) return true;
  Program made;
  program.reset();
  if (!read_program(env, *model, from, count, &made)) return false;
  words.assign(from, from + count);
  program = std::make_shared<const Program>(std::move(made));
  return true;
}

bool arguments(napi_env env, napi_callback_info info, size_t count, napi_value* out) {
  return napi_get_cb_info(env, info, &count, out, nullptr, nullptr) == napi_ok;
}

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

}  // namespace potluck
