#include "dispatch.h"

#include <cstdlib>

#include "napi_args.h"

namespace potluck {
namespace {

#if defined(__x86_64__)
// The state that the operating system saves at a switch of threads; 0 where it saves none of it.
uint64_t saved_state() {
  uint32_t eax, ebx, ecx, edx;
  __asm__ volatile("cpuid" : "=a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx) : "a"(1), "c"(0));
  if ((ecx & (1u << 27)) == 0) return 0;  // no OSXSAVE
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t(high) << 32 | low;
}

constexpr uint64_t kYmmState = 0x06, kZmmState = 0xe6;

// Null when it can run, else what is missing.
const char* lacks_avx2() {
  if ((saved_state() & kYmmState) != kYmmState) return "the operating system does not save AVX registers";
  if (!__builtin_cpu_supports("avx2")) return "the processor lacks AVX2";
  if (!__builtin_cpu_supports("fma")) return "the processor lacks FMA";
  uint32_t eax, ebx, ecx, edx;
  __asm__ volatile("cpuid" : "=a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx) : "a"(1), "c"(0));
  if ((ecx & (1u << 29)) == 0) return "the processor lacks F16C";
  return nullptr;
}

const char* lacks_avx512_vnni() {
  if (const char* reason = lacks_avx2()) return reason;
  if ((saved_state() & kZmmState) != kZmmState) return "the operating system does not save AVX-512 registers";
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512vl") ||
      !__builtin_cpu_supports("avx512dq"))
    return "the processor lacks AVX-512 F, BW, VL or DQ";
  if (!__builtin_cpu_supports("avx512vnni")) return "the processor lacks AVX-512 VNNI";
  return nullptr;
}
#endif

const char* lacks_nothing() { return nullptr; }

struct Variant {
  const char* name;
  const Kernels* kernels;  // null where this build has it not
  const char* (*lacks)();
};

// Fastest first; the reference runs everywhere.
const Variant kVariants[] = {
#if defined(__x86_64__)
    {"avx512-vnni", &kAvx512VnniKernels, lacks_avx512_vnni},
    {"avx2", &kAvx2Kernels, lacks_avx2},
#else
    {"avx512-vnni", nullptr, nullptr},
    {"avx2", nullptr, nullptr},
#endif
    {"reference", &kReferenceKernels, lacks_nothing},
};

const char* why_not(const Variant& v) { return v.kernels == nullptr ? "it is for other processors" : v.lacks(); }

void throw_unknown(napi_env env, const std::string& name, const char* reason) {
  std::string text = "kernel '" + name + "': " + reason + "; this machine has";
  for (const Variant& v : kVariants)
    if (why_not(v) == nullptr) text += std::string(" ") + v.name;
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
  for (const Variant& v : kVariants) {
    napi_create_string_utf8(env, v.name, NAPI_AUTO_LENGTH, &text);
    const char* reason = why_not(v);
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
  for (const Variant& v : kVariants) {
    if (!name.empty() && name != v.name) continue;
    const char* reason = why_not(v);
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
