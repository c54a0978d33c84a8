#include "gptq_calls.h"

#include <functional>
#include <memory>
#include <new>
#include <vector>

#include "gptq.h"
#include "memory.h"
#include "napi_args.h"

namespace potluck {
namespace {

constexpr int64_t kMostThreads = 256;
constexpr int64_t kMostColumns = 1 << 15;
constexpr int64_t kMostRows = 1 << 24;

// One call on its way, on a thread of the system's; its buffers are held until it ends.
struct Work {
  napi_async_work work = nullptr;
  napi_deferred deferred = nullptr;
  std::function<const char*()> run;  // null, or what is wrong
  std::vector<const void*> held;
  const char* error = nullptr;

  ~Work() {
    for (const void* at : held) drop_memory(at);
  }
};

void execute(napi_env, void* data) {
  Work& work = *static_cast<Work*>(data);
  try {
    work.error = work.run();
  } catch (const std::bad_alloc&) {
    work.error = "memory: there is not enough";
  }
}

void complete(napi_env env, napi_status, void* data) {
  std::unique_ptr<Work> work(static_cast<Work*>(data));
  napi_delete_async_work(env, work->work);
  napi_value value, code, text;
  if (work->error == nullptr) {
    napi_get_undefined(env, &value);
    napi_resolve_deferred(env, work->deferred, value);
    return;
  }
  napi_create_string_utf8(env, "KERNEL_FAILED", NAPI_AUTO_LENGTH, &code);
  napi_create_string_utf8(env, work->error, NAPI_AUTO_LENGTH, &text);
  napi_create_range_error(env, code, text, &value);
  napi_reject_deferred(env, work->deferred, value);
}

napi_value start(napi_env env, std::unique_ptr<Work> work) {
  napi_value promise, name;
  napi_create_string_utf8(env, "potluck rounding", NAPI_AUTO_LENGTH, &name);
  if (napi_create_promise(env, &work->deferred, &promise) != napi_ok ||
      napi_create_async_work(env, nullptr, name, execute, complete, work.get(), &work->work) != napi_ok ||
      napi_queue_async_work(env, work->work) != napi_ok) {
    throw_range(env, "rounding", "cannot be started");
    return nullptr;
  }
  work.release();
  return promise;
}

// Memory of allocate() with at least `least` bytes, held by `work`.
bool hold_buffer(napi_env env, napi_value value, const char* name, int64_t least, Work* work, uint8_t** at) {
  size_t bytes;
  if (!read_buffer(env, value, name, size_t(least), at, &bytes)) return false;
  if (!hold_memory(*at)) {
    throw_range(env, name, "does not come from allocate()");
    return false;
  }
  work->held.push_back(*at);
  return true;
}

bool read_columns(napi_env env, napi_value value, int64_t* n) {
  if (!read_integer(env, value, "columns", kRoundingGroup, kMostColumns, n)) return false;
  if (*n % kRoundingGroup == 0) return true;
  throw_range(env, "columns", "is not a multiple of 32");
  return false;
}

// addProducts(products, columns, inputs, tokens, threads)
napi_value add_products_call(napi_env env, napi_callback_info info) {
  size_t count = 5;
  napi_value argument[5];
  auto work = std::make_unique<Work>();
  int64_t n, tokens, threads;
  uint8_t *h, *x;
  if (napi_get_cb_info(env, info, &count, argument, nullptr, nullptr) != napi_ok || !read_columns(env, argument[1], &n) ||
      !read_integer(env, argument[3], "tokens", 1, kMostRows, &tokens) ||
      !read_integer(env, argument[4], "threads", 1, kMostThreads, &threads) ||
      !hold_buffer(env, argument[0], "products", triangle_bytes(n), work.get(), &h) ||
      !hold_buffer(env, argument[2], "inputs", tokens * n * 4, work.get(), &x))
    return nullptr;
  work->run = [=]() -> const char* {
    add_products(reinterpret_cast<double*>(h), n, reinterpret_cast<const float*>(x), tokens, int(threads));
    return nullptr;
  };
  return start(env, std::move(work));
}

// factorProducts(products, columns, damping, threads)
napi_value factor_products_call(napi_env env, napi_callback_info info) {
  size_t count = 4;
  napi_value argument[4];
  auto work = std::make_unique<Work>();
  int64_t n, threads;
  double damping;
  uint8_t* h;
  if (napi_get_cb_info(env, info, &count, argument, nullptr, nullptr) != napi_ok || !read_columns(env, argument[1], &n) ||
      !read_double(env, argument[2], "damping", &damping) ||
      !read_integer(env, argument[3], "threads", 1, kMostThreads, &threads) ||
      !hold_buffer(env, argument[0], "products", triangle_bytes(n), work.get(), &h))
    return nullptr;
  work->run = [=]() -> const char* {
    const bool done = factor_products(reinterpret_cast<double*>(h), n, damping, int(threads));
    return done ? nullptr : "products: are not finite";
  };
  return start(env, std::move(work));
}

// roundRows(factor, columns, weights, rows, nibbles, scales, threads)
napi_value round_rows_call(napi_env env, napi_callback_info info) {
  size_t count = 7;
  napi_value argument[7];
  auto work = std::make_unique<Work>();
  int64_t n, rows, threads;
  uint8_t *factor, *weights, *nibbles, *scales;
  if (napi_get_cb_info(env, info, &count, argument, nullptr, nullptr) != napi_ok || !read_columns(env, argument[1], &n) ||
      !read_integer(env, argument[3], "rows", 1, kMostRows, &rows) ||
      !read_integer(env, argument[6], "threads", 1, kMostThreads, &threads) ||
      !hold_buffer(env, argument[0], "factor", triangle_bytes(n), work.get(), &factor) ||
      !hold_buffer(env, argument[2], "weights", rows * n * 4, work.get(), &weights) ||
      !hold_buffer(env, argument[4], "nibbles", rows * n, work.get(), &nibbles) ||
      !hold_buffer(env, argument[5], "scales", rows * (n / kRoundingGroup) * 2, work.get(), &scales))
    return nullptr;
  work->run = [=]() -> const char* {
    round_rows(reinterpret_cast<const double*>(factor), n, reinterpret_cast<const float*>(weights), rows, nibbles,
               reinterpret_cast<uint16_t*>(scales), int(threads));
    return nullptr;
  };
  return start(env, std::move(work));
}

}  // namespace

bool register_gptq(napi_env env, napi_value exports) {
  return set_function(env, exports, "addProducts", add_products_call) &&
         set_function(env, exports, "factorProducts", factor_products_call) &&
         set_function(env, exports, "roundRows", round_rows_call);
}

}  // namespace potluck
