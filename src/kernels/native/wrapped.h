// C++ objects behind JavaScript objects: wrapped, and tagged so that any other object is refused.
#pragma once
#include <memory>

#include "napi_args.h"

namespace potluck {

template <typename T>
bool wrap_object(napi_env env, std::shared_ptr<T> object, const napi_type_tag* tag, napi_value* out) {
  auto* holder = new std::shared_ptr<T>(std::move(object));
  auto finalize = [](napi_env, void* data, void*) { delete static_cast<std::shared_ptr<T>*>(data); };
  if (napi_create_object(env, out) != napi_ok || napi_type_tag_object(env, *out, tag) != napi_ok) {
    delete holder;
    return false;
  }
  if (napi_wrap(env, *out, holder, finalize, nullptr, nullptr) == napi_ok) return true;
  delete holder;
  return false;
}

template <typename T>
bool unwrap_object(napi_env env, napi_value value, const char* name, const napi_type_tag* tag, std::shared_ptr<T>* out) {
  napi_valuetype type = napi_undefined;
  bool ours = false;
  void* data = nullptr;
  if (napi_typeof(env, value, &type) != napi_ok || type != napi_object ||
      napi_check_object_type_tag(env, value, tag, &ours) != napi_ok || !ours ||
      napi_unwrap(env, value, &data) != napi_ok) {
    throw_range(env, name, "is not what this call takes");
    return false;
  }
  *out = *static_cast<std::shared_ptr<T>*>(data);
  return true;
}

}  // namespace potluck
