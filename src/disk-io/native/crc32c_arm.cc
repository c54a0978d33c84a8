// Compiled with the instructions of CRC-32 (scripts/build-addon.mjs).
#include "crc32c.h"

#if (defined(__aarch64__) || defined(_M_ARM64)) && !defined(__AARCH64EB__)
#include <cstring>
#if defined(_MSC_VER)
#include <intrin.h>
#include <windows.h>
#else
#include <arm_acle.h>
#if defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif
#endif
#define POTLUCK_CRC_TARGET

namespace potluck {
namespace {

inline uint32_t crc_word(uint32_t crc, uint64_t word) { return __crc32cd(crc, word); }
inline uint32_t crc_byte(uint32_t crc, uint8_t byte) { return __crc32cb(crc, byte); }

#include "crc32c_interleaved.h"

bool has_crc() {
#if defined(_MSC_VER)
  return IsProcessorFeaturePresent(PF_ARM_V8_CRC32_INSTRUCTIONS_AVAILABLE) != 0;
#elif defined(__APPLE__)
  return true;
#elif defined(__linux__)
  return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0;
#else
  return false;
#endif
}

}  // namespace

Crc32cFunction crc32c_arm() { return has_crc() ? interleaved : nullptr; }

}  // namespace potluck

#else

namespace potluck {
Crc32cFunction crc32c_arm() { return nullptr; }
}  // namespace potluck

#endif
