// Reading arguments of native calls. Every reader throws a JavaScript exception that names the argument and returns
// false when the value is not what it must be; the caller then returns nullptr at once.
#pragma once
#include <node_api.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>

namespace potluck {

inline void throw_range(napi_env env, const char* name, const char* what) {
  char text[256];
  std::snprintf(text, sizeof text, "%s: %s", name, what);
  napi_throw_range_error(env, "KERNEL_FAILED", text);
}

// An integer in [low, high]; at most 2^53.
inline bool read_integer(napi_env env, napi_value value, const char* name, int64_t low, int64_t high, int64_t* out) {
  double number = 0;
  if (napi_get_value_double(env, value, &number) != napi_ok) {
    throw_range(env, name, "is not a number");
    return false;
  }
  if (!(number >= double(low) && number <= double(high)) || number != std::floor(number)) {
    char text[128];
    std::snprintf(text, sizeof text, "%.17g is not an integer from %lld to %lld", number, (long long)low, (long long)high);
    throw_range(env, name, text);
    return false;
  }
  *out = int64_t(number);
  return true;
}

inline bool read_double(napi_env env, napi_value value, const char* name, double* out) {
  if (napi_get_value_double(env, value, out) != napi_ok || !std::isfinite(*out)) {
    throw_range(env, name, "is not a finite number");
    return false;
  }
  return true;
}

inline bool read_bool(napi_env env, napi_value value, const char* name, bool* out) {
  if (napi_get_value_bool(env, value, out) != napi_ok) {
    throw_range(env, name, "is not a boolean");
    return false;
  }
  return true;
}

inline bool read_string(napi_env env, napi_value value, const char* name, size_t most, std::string* out) {
  size_t length = 0;
  if (napi_get_value_string_utf8(env, value, nullptr, 0, &length) != napi_ok || length > most) {
    throw_range(env, name, "is not a string, or is too long");
    return false;
  }
  out->resize(length + 1);
  napi_get_value_string_utf8(env, value, out->data(), length + 1, &length);
  out->resize(length);
  return true;
}

// An ArrayBuffer that is not detached and has at least `least` bytes.
inline bool read_buffer(napi_env env, napi_value value, const char* name, size_t least, uint8_t** data, size_t* bytes) {
  bool is = false;
  if (napi_is_arraybuffer(env, value, &is) != napi_ok || !is) {
    throw_range(env, name, "is not an ArrayBuffer");
    return false;
  }
  void* at = nullptr;
  size_t length = 0;
  if (napi_get_arraybuffer_info(env, value, &at, &length) != napi_ok || (at == nullptr && least > 0) || length < least) {
    throw_range(env, name, "is detached or too small");
    return false;
  }
  *data = static_cast<uint8_t*>(at);
  *bytes = length;
  return true;
}

// A typed array of exactly this type.
inline bool read_typed(napi_env env, napi_value value, const char* name, napi_typedarray_type type, void** data,
                       size_t* elements) {
  bool is = false;
  napi_typedarray_type actual{};
  if (napi_is_typedarray(env, value, &is) != napi_ok || !is ||
      napi_get_typedarray_info(env, value, &actual, elements, data, nullptr, nullptr) != napi_ok || actual != type) {
    throw_range(env, name, "is not a typed array of the right type");
    return false;
  }
  return true;
}

// A property of an object.
inline bool read_property(napi_env env, napi_value object, const char* name, napi_value* out) {
  if (napi_get_named_property(env, object, name, out) != napi_ok) {
    throw_range(env, name, "is missing");
    return false;
  }
  return true;
}

inline bool set_function(napi_env env, napi_value exports, const char* name, napi_callback call) {
  napi_value function;
  return napi_create_function(env, name, NAPI_AUTO_LENGTH, call, nullptr, &function) == napi_ok &&
         napi_set_named_property(env, exports, name, function) == napi_ok;
}

}  // namespace potluck
