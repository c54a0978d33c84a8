// Runs limit programs on threads of their own, off the JavaScript thread, and says how long they took.
#include "limits.h"

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <system_error>
#include <thread>

#include "limit_programs.h"
#include "memory.h"
#include "napi_args.h"

namespace potluck {
namespace {

constexpr int64_t kMostThreads = 256;
constexpr int64_t kMostRepeats = 1 << 20;
// What a thread takes at a time: long enough to be a stream, short enough that threads end together.
constexpr size_t kChunk = size_t(1) << 20;
constexpr int64_t kRoundsAtOnce = 4096;
constexpr size_t kPage = 4096;

using Clock = std::chrono::steady_clock;

// One measurement on its way.
struct Measurement {
  napi_async_work work = nullptr;
  napi_deferred deferred = nullptr;
  int64_t threads = 0;
  // Called again and again on every thread with rising numbers, until it returns false.
  std::function<bool(int64_t item)> part;
  std::function<void()> prepare;
  const void* held = nullptr;  // memory that is in use
  double seconds = 0;
  std::string error;
};

// Takes parts on `threads` threads, which begin together; the seconds from then to the end of the last.
double run_together(int64_t threads, const std::function<bool(int64_t)>& part) {
  enum State { waiting, begun, given_up };
  std::atomic<State> state{waiting};
  std::atomic<int64_t> arrived{0}, next{0};
  const auto take_parts = [&] {
    while (part(next.fetch_add(1))) {
    }
  };
  std::vector<std::thread> others;
  try {
    for (int64_t i = 1; i < threads; i++)
      others.emplace_back([&] {
        arrived++;
        while (state == waiting) {
        }
        if (state == begun) take_parts();
      });
  } catch (...) {
    state = given_up;
    for (std::thread& thread : others) thread.join();
    throw;
  }
  while (arrived + 1 < threads) {
  }
  const Clock::time_point started = Clock::now();
  state = begun;
  take_parts();
  for (std::thread& thread : others) thread.join();
  return std::chrono::duration<double>(Clock::now() - started).count();
}

void execute(napi_env, void* data) {
  Measurement& m = *static_cast<Measurement*>(data);
  try {
    if (m.prepare) m.prepare();
    m.seconds = run_together(m.threads, m.part);
  } catch (const std::system_error&) {
    m.error = "threads: the system refuses that many";
  }
}

void complete(napi_env env, napi_status, void* data) {
  std::unique_ptr<Measurement> m(static_cast<Measurement*>(data));
  if (m->held != nullptr) drop_memory(m->held);
  napi_delete_async_work(env, m->work);
  napi_value value;
  if (m->error.empty()) {
    napi_create_double(env, m->seconds, &value);
    napi_resolve_deferred(env, m->deferred, value);
    return;
  }
  napi_value code, text;
  napi_create_string_utf8(env, "KERNEL_FAILED", NAPI_AUTO_LENGTH, &code);
  napi_create_string_utf8(env, m->error.c_str(), NAPI_AUTO_LENGTH, &text);
  napi_create_range_error(env, code, text, &value);
  napi_reject_deferred(env, m->deferred, value);
}

// The promise of a measurement's seconds.
napi_value start(napi_env env, std::unique_ptr<Measurement> m) {
  napi_value promise, name;
  napi_create_string_utf8(env, "potluck limit", NAPI_AUTO_LENGTH, &name);
  if (napi_create_promise(env, &m->deferred, &promise) != napi_ok ||
      napi_create_async_work(env, nullptr, name, execute, complete, m.get(), &m->work) != napi_ok ||
      napi_queue_async_work(env, m->work) != napi_ok) {
    if (m->held != nullptr) drop_memory(m->held);
    throw_range(env, "measure", "cannot be started");
    return nullptr;
  }
  m.release();
  return promise;
}

template <typename Program>
const Program* read_program_name(napi_env env, napi_value value, const std::vector<Program>& all) {
  std::string name;
  if (!read_string(env, value, "program", 64, &name)) return nullptr;
  for (const Program& each : all)
    if (name == each.name) return &each;
  throw_range(env, "program", "is none of limitPrograms()");
  return nullptr;
}

// measureRead(memory, bytes, program, threads, repeats): Promise<seconds>
napi_value measure_read(napi_env env, napi_callback_info info) {
  size_t count = 5;
  napi_value argument[5];
  uint8_t* at;
  size_t size;
  int64_t bytes, threads, repeats;
  if (napi_get_cb_info(env, info, &count, argument, nullptr, nullptr) != napi_ok ||
      !read_buffer(env, argument[0], "memory", kChunk, &at, &size) ||
      !read_integer(env, argument[1], "bytes", int64_t(kChunk), int64_t(size), &bytes))
    return nullptr;
  const ReadProgram* program = read_program_name(env, argument[2], read_programs());
  if (program == nullptr || !read_integer(env, argument[3], "threads", 1, kMostThreads, &threads) ||
      !read_integer(env, argument[4], "repeats", 1, kMostRepeats, &repeats))
    return nullptr;
  if (!hold_memory(at)) {
    throw_range(env, "memory", "does not come from allocate()");
    return nullptr;
  }
  auto m = std::make_unique<Measurement>();
  m->held = at;
  m->threads = threads;
  const int64_t chunks = bytes / int64_t(kChunk);
  // A page that was never written is not memory yet: all such pages are one page of zeros.
  m->prepare = [at, chunks] {
    for (size_t i = 0; i < size_t(chunks) * kChunk; i += kPage) __atomic_fetch_or(at + i, uint8_t(0), __ATOMIC_RELAXED);
  };
  m->part = [at, chunks, program, all = chunks * repeats](int64_t item) {
    if (item >= all) return false;
    volatile uint64_t used = program->read(at + size_t(item % chunks) * kChunk, kChunk);
    (void)used;
    return true;
  };
  return start(env, std::move(m));
}

// measureDot(program, threads, rounds): Promise<seconds>
napi_value measure_dot(napi_env env, napi_callback_info info) {
  size_t count = 3;
  napi_value argument[3];
  int64_t threads, rounds;
  if (napi_get_cb_info(env, info, &count, argument, nullptr, nullptr) != napi_ok) return nullptr;
  const DotProgram* program = read_program_name(env, argument[0], dot_programs());
  if (program == nullptr || !read_integer(env, argument[1], "threads", 1, kMostThreads, &threads) ||
      !read_integer(env, argument[2], "rounds", 1, kMostRepeats, &rounds))
    return nullptr;
  auto m = std::make_unique<Measurement>();
  m->threads = threads;
  m->part = [program, rounds](int64_t item) {
    if (item >= rounds) return false;
    program->run(kRoundsAtOnce);
    return true;
  };
  return start(env, std::move(m));
}

// limitPrograms(): {read: string[], dot: {name, multiplyAdds}[]}
napi_value limit_programs(napi_env env, napi_callback_info) {
  napi_value result, read, dot, name, number, entry;
  napi_create_object(env, &result);
  napi_create_array(env, &read);
  napi_create_array(env, &dot);
  uint32_t i = 0;
  for (const ReadProgram& each : read_programs()) {
    napi_create_string_utf8(env, each.name, NAPI_AUTO_LENGTH, &name);
    napi_set_element(env, read, i++, name);
  }
  i = 0;
  for (const DotProgram& each : dot_programs()) {
    napi_create_object(env, &entry);
    napi_create_string_utf8(env, each.name, NAPI_AUTO_LENGTH, &name);
    napi_create_double(env, double(each.multiply_adds * kRoundsAtOnce), &number);
    napi_set_named_property(env, entry, "name", name);
    napi_set_named_property(env, entry, "multiplyAdds", number);
    napi_set_element(env, dot, i++, entry);
  }
  napi_set_named_property(env, result, "read", read);
  napi_set_named_property(env, result, "dot", dot);
  return result;
}

}  // namespace

bool register_limits(napi_env env, napi_value exports) {
  return set_function(env, exports, "limitPrograms", limit_programs) &&
         set_function(env, exports, "measureRead", measure_read) &&
         set_function(env, exports, "measureDot", measure_dot);
}

}  // namespace potluck
