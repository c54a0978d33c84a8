#include "dispatch.h"

#include <cstdlib>

#include "napi_args.h"
#include "variants.h"

namespace potluck {
namespace {

void throw_unknown(napi_env env, const std::string& name, const char* reason) {
  std::string text = "kernel '" + name + "': " + reason + "; this machine has";
  for (const Variant& v : variants())
    if (v.why_not() == nullptr) text += std::string(" ") + v.name;
  napi_throw_error(env, "KERNEL_UNKNOWN", text.c_str());
}

napi_value kernels(napi_env env, napi_callback_info) {
  const Kernels* selected = select_kernels(env, "");
  if (selected == nullptr) return nullptr;
  napi_value result, available, unavailable, text;
  napi_create_object(env, &result);
  napi_create_array(env, &available);
  napi_create_array(env, &unavailable);
  uint32_t have = 0, lack = 0;
  for (const Variant& v : variants()) {
    napi_create_string_utf8(env, v.name, NAPI_AUTO_LENGTH, &text);
    const char* reason = v.why_not();
    if (reason == nullptr) {
      napi_set_element(env, available, have++, text);
      continue;
    }
    napi_value entry, reason_text;
    napi_create_object(env, &entry);
    napi_set_named_property(env, entry, "name", text);
    napi_create_string_utf8(env, reason, NAPI_AUTO_LENGTH, &reason_text);
    napi_set_named_property(env, entry, "reason", reason_text);
    napi_set_element(env, unavailable, lack++, entry);
  }
  napi_create_string_utf8(env, selected->name, NAPI_AUTO_LENGTH, &text);
  napi_set_named_property(env, result, "selected", text);
  napi_set_named_property(env, result, "available", available);
  napi_set_named_property(env, result, "unavailable", unavailable);
  return result;
}

}  // namespace

const Kernels* select_kernels(napi_env env, const std::string& asked) {
  const char* forced = std::getenv("POTLUCK_KERNEL");
  const std::string name = asked.empty() && forced != nullptr ? forced : asked;
  for (const Variant& v : variants()) {
    if (!name.empty() && name != v.name) continue;
    const char* reason = v.why_not();
    if (reason == nullptr) return v.kernels;
    if (name.empty()) continue;
    throw_unknown(env, name, reason);
    return nullptr;
  }
  throw_unknown(env, name, "there is none of that name");
  return nullptr;
}

bool register_dispatch(napi_env env, napi_value exports) { return set_function(env, exports, "kernels", kernels); }

}  // namespace potluck
