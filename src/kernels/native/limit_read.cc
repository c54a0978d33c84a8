// Reading memory as fast as it goes: vector loads, with and without software prefetch, as one stream or as four.
#include "limit_programs.h"

namespace potluck {
namespace {

constexpr size_t kLine = 64;
typedef uint64_t Vector __attribute__((vector_size(64), may_alias));

inline uint64_t fold(Vector v) {
  uint64_t sum = 0;
  for (int i = 0; i < 8; i++) sum ^= v[i];
  return sum;
}

// Streams are parts of the bytes that are read in turn, 4 lines of each. Ahead is in bytes; 0 leaves it to the hardware.
template <int Streams, size_t Ahead>
inline __attribute__((always_inline)) uint64_t read_streams(const uint8_t* at, size_t bytes) {
  const size_t part = bytes / Streams;
  Vector a{}, b{}, c{}, d{};
  for (size_t i = 0; i < part; i += 4 * kLine) {
    for (int s = 0; s < Streams; s++) {
      const uint8_t* from = at + size_t(s) * part + i;
      if (Ahead > 0)
        for (size_t line = 0; line < 4; line++) __builtin_prefetch(from + Ahead + line * kLine, 0, 3);
      a ^= *reinterpret_cast<const Vector*>(from);
      b ^= *reinterpret_cast<const Vector*>(from + kLine);
      c ^= *reinterpret_cast<const Vector*>(from + 2 * kLine);
      d ^= *reinterpret_cast<const Vector*>(from + 3 * kLine);
    }
  }
  return fold(a ^ b ^ c ^ d);
}

// A 64-byte vector is as many registers as the instruction set needs for it.
#define READ_PROGRAMS(SUFFIX, TARGET)                                                                             \
  TARGET uint64_t plain_##SUFFIX(const uint8_t* at, size_t n) { return read_streams<1, 0>(at, n); }               \
  TARGET uint64_t near_##SUFFIX(const uint8_t* at, size_t n) { return read_streams<1, 1024>(at, n); }             \
  TARGET uint64_t far_##SUFFIX(const uint8_t* at, size_t n) { return read_streams<1, 4096>(at, n); }              \
  TARGET uint64_t four_##SUFFIX(const uint8_t* at, size_t n) { return read_streams<4, 0>(at, n); }                \
  TARGET uint64_t four_ahead_##SUFFIX(const uint8_t* at, size_t n) { return read_streams<4, 1024>(at, n); }       \
  const std::vector<ReadProgram>& programs_##SUFFIX() {                                                           \
    static const std::vector<ReadProgram> all = {{"loads", plain_##SUFFIX},                                       \
                                                 {"loads, prefetch 1 KiB ahead", near_##SUFFIX},                  \
                                                 {"loads, prefetch 4 KiB ahead", far_##SUFFIX},                   \
                                                 {"4 streams", four_##SUFFIX},                                    \
                                                 {"4 streams, prefetch 1 KiB ahead", four_ahead_##SUFFIX}};       \
    return all;                                                                                                   \
  }

READ_PROGRAMS(base, )
#if defined(__x86_64__)
READ_PROGRAMS(avx2, __attribute__((target("avx2"))))
READ_PROGRAMS(avx512, __attribute__((target("avx512f,prefer-vector-width=512"))))
#endif

}  // namespace

const std::vector<ReadProgram>& read_programs() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return programs_avx512();
  if (__builtin_cpu_supports("avx2")) return programs_avx2();
#endif
  return programs_base();
}

}  // namespace potluck
