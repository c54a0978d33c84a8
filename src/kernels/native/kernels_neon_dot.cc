// NEON with dot products (Armv8.2 and later): one instruction is 4 rows x 4 inputs of a w4 panel.
#include "kernels.h"

#if defined(__aarch64__)
#include "neon_dot.h"
#include "simd_kernels.h"

namespace potluck {
namespace {

constexpr int kW4Tokens = 4, kStreams = 1;

template <int T, class Use>
inline void w4_group(const uint8_t* nibbles, const uint8_t* q, const uint8_t* bias, size_t stride, const Use& use) {
  w4_group_dot<T>(nibbles, q, bias, stride, use);
}

}  // namespace
}  // namespace potluck

#include "simd_variant.h"

namespace potluck {
const Kernels kNeonDotKernels = {
    "neon-dot",
    POTLUCK_SIMD_KERNELS,
};

}  // namespace potluck
#endif
