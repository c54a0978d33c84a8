#include "logit_calls.h"

#include <algorithm>
#include <limits>

#include "kernels.h"
#include "napi_args.h"

namespace potluck {
namespace {

constexpr size_t kAtOnce = 16;

// Whether one of kAtOnce values is above `best`, or a NaN.
bool any_above(const float* x, float best) {
  int above = 0;
  for (size_t i = 0; i < kAtOnce; i++) above |= !(x[i] <= best);
  return above != 0;
}

// Place of the greatest of n values, the first of equal ones; of a NaN above it; -1 where none is above -infinity.
int64_t greatest(const float* x, size_t n) {
  float best = -std::numeric_limits<float>::infinity();
  int64_t at = -1;
  for (size_t first = 0; first < n; first += kAtOnce) {
    const size_t past = std::min(n, first + kAtOnce);
    if (past - first == kAtOnce && !any_above(x + first, best)) continue;
    for (size_t i = first; i < past; i++) {
      if (x[i] <= best) continue;
      at = int64_t(i);
      if (!(x[i] > best)) return at;
      best = x[i];
    }
  }
  return at;
}

bool read_floats(napi_env env, napi_value value, const char* name, size_t least, float** floats, size_t* count) {
  void* data;
  if (!read_typed(env, value, name, napi_float32_array, &data, count)) return false;
  *floats = static_cast<float*>(data);
  if (*count >= least) return true;
  throw_range(env, name, "is too short");
  return false;
}

}  // namespace

// greatest(logits)
napi_value greatest_call(napi_env env, napi_callback_info info) {
  size_t count = 1, length;
  napi_value argument, result;
  float* logits;
  if (napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr) != napi_ok ||
      !read_floats(env, argument, "logits", 0, &logits, &length))
    return nullptr;
  napi_create_double(env, double(greatest(logits, length)), &result);
  return result;
}

// argument: logits, max, inverse, weights
napi_value weigh_row(napi_env env, const Kernels& kernels, const napi_value* argument) {
  float *logits, *weights;
  size_t count, weight_count;
  double max, inverse;
  if (!read_floats(env, argument[0], "logits", 0, &logits, &count) || !read_double(env, argument[1], "max", &max) ||
      !read_double(env, argument[2], "inverse", &inverse) ||
      !read_floats(env, argument[3], "weights", count, &weights, &weight_count))
    return nullptr;
  constexpr size_t kPart = 1024;  // stays in the nearest cache
  for (size_t first = 0; first < count; first += kPart) {
    const size_t n = std::min(kPart, count - first);
    float* x = weights + first;
    for (size_t i = 0; i < n; i++) x[i] = (logits[first + i] - float(max)) * float(inverse);
    kernels.exp(x, int(n), x);
  }
  return nullptr;
}

}  // namespace potluck
