// One run of a program on the threads of a pool, and its way back to the JavaScript thread.
#include "run_call.h"

#include <atomic>
#include <chrono>
#include <thread>

#include "engine_handles.h"
#include "napi_args.h"

namespace potluck {
namespace {

using Clock = std::chrono::steady_clock;

// From nearly_done() to the end, at most, where JavaScript wakes for it.
constexpr std::chrono::microseconds kMostAhead{150};

// One run on its way: lives from submit to its last call on the JavaScript thread.
struct Run final : Job {
  explicit Run(std::shared_ptr<ModelHandle> h) : Job(h->model, h->program), handle(std::move(h)) {}

  // The JavaScript thread sleeps while threads compute, and takes 50 us to wake: as long as the head of a small model. It
  // wakes then, and waits for the end.
  void nearly_done() override {
    if (head_from != Clock::time_point()) return;  // a program may have two heads
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
    const Clock::time_point until = Clock::now() + kMostAhead;
    while (state.load() != State::ended && Clock::now() < until) std::this_thread::yield();
    now = State::awaited;
    return !state.compare_exchange_strong(now, State::running);
  }

  enum class State { running, awaited, ended };
  std::shared_ptr<ModelHandle> handle;
  napi_threadsafe_function report = nullptr;
  napi_deferred deferred = nullptr;
  std::atomic<State> state{State::running};
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

}  // namespace

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

napi_value run_call(napi_env env, napi_callback_info info) {
  napi_value argument[3], promise;
  bool eager;
  std::shared_ptr<ModelHandle> handle;
  void* words;
  size_t count;
  if (!arguments(env, info, 3, argument) || !read_idle_model(env, argument[0], &handle) ||
      !read_typed(env, argument[1], "program", napi_float64_array, &words, &count) ||
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
  job->wakes_early = eager && spare && handle->head_seconds < std::chrono::duration<double>(kMostAhead).count();
  job->started = Clock::now();
  pool.engine->pool.set_eager(eager);
  pool.engine->pool.submit(job.release());
  return promise;
}

}  // namespace potluck
