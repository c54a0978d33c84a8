#include "variants.h"

#include "cpu_features.h"

#if defined(__x86_64__)
#define POTLUCK_X86(kernels, lacks) &kernels, lacks
#else
#define POTLUCK_X86(kernels, lacks) nullptr, nullptr
#endif
#if defined(__aarch64__)
#define POTLUCK_ARM(kernels, lacks) &kernels, lacks
#else
#define POTLUCK_ARM(kernels, lacks) nullptr, nullptr
#endif

namespace potluck {
namespace {

const char* lacks_nothing() { return nullptr; }

}  // namespace

const std::vector<Variant>& variants() {
  static const std::vector<Variant> all = {
      {"avx512-vnni", POTLUCK_X86(kAvx512VnniKernels, lacks_avx512_vnni)},
      {"avx-vnni", POTLUCK_X86(kAvxVnniKernels, lacks_avx_vnni)},
      {"avx2", POTLUCK_X86(kAvx2Kernels, lacks_avx2)},
      {"neon-i8mm", POTLUCK_ARM(kNeonI8mmKernels, lacks_neon_i8mm)},
      {"neon-dot", POTLUCK_ARM(kNeonDotKernels, lacks_neon_dot)},
      {"neon", POTLUCK_ARM(kNeonKernels, lacks_nothing)},
      {"reference", &kReferenceKernels, lacks_nothing},
  };
  return all;
}

const char* Variant::why_not() const {
  if (kernels == nullptr) return "it is for other processors";
  if (kernels->name == nullptr) return "the compiler that made the addon does not know it";
  return lacks();
}

}  // namespace potluck
