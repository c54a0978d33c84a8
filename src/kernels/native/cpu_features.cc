#include "cpu_features.h"

#include <cstddef>
#include <cstdint>

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace potluck {

#if defined(__x86_64__)
namespace {

struct CpuId {
  uint32_t eax, ebx, ecx, edx;
  CpuId(uint32_t leaf, uint32_t subleaf) {
    __asm__ volatile("cpuid" : "=a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx) : "a"(leaf), "c"(subleaf));
  }
};

// The state that the operating system saves at a switch of threads; 0 where it saves none of it.
uint64_t saved_state() {
  if ((CpuId(1, 0).ecx & (1u << 27)) == 0) return 0;  // no OSXSAVE
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t(high) << 32 | low;
}

constexpr uint64_t kYmmState = 0x06, kZmmState = 0xe6;

}  // namespace

const char* lacks_avx2() {
  if ((saved_state() & kYmmState) != kYmmState) return "the operating system does not save AVX registers";
  if (!__builtin_cpu_supports("avx2")) return "the processor lacks AVX2";
  if (!__builtin_cpu_supports("fma")) return "the processor lacks FMA";
  if ((CpuId(1, 0).ecx & (1u << 29)) == 0) return "the processor lacks F16C";
  return nullptr;
}

const char* lacks_avx_vnni() {
  if (const char* reason = lacks_avx2()) return reason;
  const bool has = CpuId(7, 0).eax >= 1 && (CpuId(7, 1).eax & (1u << 4)) != 0;
  return has ? nullptr : "the processor lacks AVX-VNNI";
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

#elif defined(__aarch64__)
namespace {

#if defined(__linux__)
bool has_dot() { return (getauxval(AT_HWCAP) & (1ul << 20)) != 0; }    // HWCAP_ASIMDDP
bool has_i8mm() { return (getauxval(AT_HWCAP2) & (1ul << 13)) != 0; }  // HWCAP2_I8MM
#elif defined(__APPLE__)
bool has_dot() { return true; }  // all that run macOS
bool has_i8mm() {
  int32_t value = 0;
  size_t bytes = sizeof value;
  return sysctlbyname("hw.optional.arm.FEAT_I8MM", &value, &bytes, nullptr, 0) == 0 && value != 0;
}
#else
bool has_dot() { return false; }
bool has_i8mm() { return false; }
#endif

}  // namespace

const char* lacks_neon_dot() { return has_dot() ? nullptr : "the processor lacks dot products (FEAT_DotProd)"; }

const char* lacks_neon_i8mm() {
  if (const char* reason = lacks_neon_dot()) return reason;
  return has_i8mm() ? nullptr : "the processor lacks matrix products of int8 (FEAT_I8MM)";
}
#endif

}  // namespace potluck
