#include "crc32c.h"

#if defined(__x86_64__) || defined(_M_X64)
#include <nmmintrin.h>

#include <cstring>
#if defined(_MSC_VER)
#include <intrin.h>
#define POTLUCK_CRC_TARGET
#else
#define POTLUCK_CRC_TARGET __attribute__((target("sse4.2")))
#endif

namespace potluck {
namespace {

POTLUCK_CRC_TARGET inline uint32_t crc_word(uint32_t crc, uint64_t word) { return uint32_t(_mm_crc32_u64(crc, word)); }
POTLUCK_CRC_TARGET inline uint32_t crc_byte(uint32_t crc, uint8_t byte) { return _mm_crc32_u8(crc, byte); }

#include "crc32c_interleaved.h"

bool has_sse42() {
#if defined(_MSC_VER)
  int leaf[4];
  __cpuid(leaf, 1);
  return (leaf[2] >> 20 & 1) != 0;
#else
  return __builtin_cpu_supports("sse4.2");
#endif
}

}  // namespace

Crc32cFunction crc32c_sse42() { return has_sse42() ? interleaved : nullptr; }

}  // namespace potluck

#else

namespace potluck {
Crc32cFunction crc32c_sse42() { return nullptr; }
}  // namespace potluck

#endif
