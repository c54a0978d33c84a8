// 8-bit dot products as fast as they go: the instruction alone, on registers, with enough chains to hide its latency.
#include "cpu_features.h"
#include "limit_programs.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace potluck {
namespace {

// Twelve chains: more than latency times instructions a cycle of any of these.
#define TWELVE(ONE) ONE(0) ONE(1) ONE(2) ONE(3) ONE(4) ONE(5) ONE(6) ONE(7) ONE(8) ONE(9) ONE(10) ONE(11)
constexpr int64_t kChains = 12;

#if defined(__x86_64__)

__attribute__((target("avx512f"))) void vpdpbusd_zmm(int64_t rounds) {
  const __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(-5);
  __m512i sum[kChains] = {};
  for (int64_t r = 0; r < rounds; r++) {
#define STEP(i) __asm__ volatile("vpdpbusd %2, %1, %0" : "+v"(sum[i]) : "v"(a), "v"(b));
    TWELVE(STEP)
#undef STEP
  }
}

__attribute__((target("avx512f,avx512vl"))) void vpdpbusd_ymm(int64_t rounds) {
  const __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(-5);
  __m256i sum[kChains] = {};
  for (int64_t r = 0; r < rounds; r++) {
#define STEP(i) __asm__ volatile("%{evex%} vpdpbusd %2, %1, %0" : "+v"(sum[i]) : "v"(a), "v"(b));
    TWELVE(STEP)
#undef STEP
  }
}

__attribute__((target("avx2"))) void vpdpbusd_vex(int64_t rounds) {
  const __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(-5);
  __m256i sum[kChains] = {};
  for (int64_t r = 0; r < rounds; r++) {
#define STEP(i) __asm__ volatile("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum[i]) : "x"(a), "x"(b));
    TWELVE(STEP)
#undef STEP
  }
}

// Without VNNI: pairs to 16 bits, pairs of those to 32, and a sum.
__attribute__((target("avx2"))) void vpmaddubsw_wide(int64_t rounds) {
  const __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(-5), ones = _mm256_set1_epi16(1);
  __m256i sum[kChains] = {};
  for (int64_t r = 0; r < rounds; r++) {
#define STEP(i)                                                                                                   \
  {                                                                                                               \
    __m256i pairs;                                                                                                \
    __asm__ volatile("vpmaddubsw %3, %2, %1\n\tvpmaddwd %4, %1, %1\n\tvpaddd %1, %0, %0"                          \
                     : "+x"(sum[i]), "=&x"(pairs)                                                                 \
                     : "x"(a), "x"(b), "x"(ones));                                                                \
  }
    TWELVE(STEP)
#undef STEP
  }
}

// The same with sums of 16 bits, as far as they reach.
__attribute__((target("avx2"))) void vpmaddubsw_narrow(int64_t rounds) {
  const __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(-5);
  __m256i sum[kChains] = {};
  for (int64_t r = 0; r < rounds; r++) {
#define STEP(i)                                                                                                   \
  {                                                                                                               \
    __m256i pairs;                                                                                                \
    __asm__ volatile("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0" : "+x"(sum[i]), "=&x"(pairs) : "x"(a), "x"(b)); \
  }
    TWELVE(STEP)
#undef STEP
  }
}

std::vector<DotProgram> find_programs() {
  std::vector<DotProgram> found;
  const bool vnni = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vnni");
  const bool avx2 = __builtin_cpu_supports("avx2");
  if (vnni) found.push_back({"vpdpbusd zmm", vpdpbusd_zmm, kChains * 64});
  if (vnni && __builtin_cpu_supports("avx512vl")) found.push_back({"vpdpbusd ymm", vpdpbusd_ymm, kChains * 32});
  if (lacks_avx_vnni() == nullptr) found.push_back({"vpdpbusd ymm (AVX-VNNI)", vpdpbusd_vex, kChains * 32});
  if (avx2) found.push_back({"vpmaddubsw, 32-bit sums", vpmaddubsw_wide, kChains * 32});
  if (avx2) found.push_back({"vpmaddubsw, 16-bit sums", vpmaddubsw_narrow, kChains * 32});
  return found;
}

#elif defined(__aarch64__)

#if defined(__clang__)
#define POTLUCK_WITH(feature) __attribute__((target(feature)))
#else
#define POTLUCK_WITH(feature) __attribute__((target("arch=armv8.2-a+" feature)))
#endif

POTLUCK_WITH("i8mm") void smmla(int64_t rounds) {
  const int8x16_t a = vdupq_n_s8(3), b = vdupq_n_s8(-5);
  int32x4_t sum[kChains] = {};
  for (int64_t r = 0; r < rounds; r++) {
#define STEP(i) __asm__ volatile("smmla %0.4s, %1.16b, %2.16b" : "+w"(sum[i]) : "w"(a), "w"(b));
    TWELVE(STEP)
#undef STEP
  }
}

POTLUCK_WITH("dotprod") void sdot(int64_t rounds) {
  const int8x16_t a = vdupq_n_s8(3), b = vdupq_n_s8(-5);
  int32x4_t sum[kChains] = {};
  for (int64_t r = 0; r < rounds; r++) {
#define STEP(i) __asm__ volatile("sdot %0.4s, %1.16b, %2.16b" : "+w"(sum[i]) : "w"(a), "w"(b));
    TWELVE(STEP)
#undef STEP
  }
}

// Without dot products: 8 products to 16 bits, and pairs of them added to 32.
void smull(int64_t rounds) {
  const int8x8_t a = vdup_n_s8(3), b = vdup_n_s8(-5);
  int32x4_t sum[kChains] = {};
  for (int64_t r = 0; r < rounds; r++) {
#define STEP(i)                                                                                             \
  {                                                                                                         \
    int16x8_t products;                                                                                     \
    __asm__ volatile("smull %1.8h, %2.8b, %3.8b\n\tsadalp %0.4s, %1.8h"                                     \
                     : "+w"(sum[i]), "=&w"(products)                                                        \
                     : "w"(a), "w"(b));                                                                     \
  }
    TWELVE(STEP)
#undef STEP
  }
}

// The same with sums of 16 bits, as far as they reach.
void smlal(int64_t rounds) {
  const int8x8_t a = vdup_n_s8(3), b = vdup_n_s8(-5);
  int16x8_t sum[kChains] = {};
  for (int64_t r = 0; r < rounds; r++) {
#define STEP(i) __asm__ volatile("smlal %0.8h, %1.8b, %2.8b" : "+w"(sum[i]) : "w"(a), "w"(b));
    TWELVE(STEP)
#undef STEP
  }
}

std::vector<DotProgram> find_programs() {
  std::vector<DotProgram> found;
  if (lacks_neon_i8mm() == nullptr) found.push_back({"smmla", smmla, kChains * 32});
  if (lacks_neon_dot() == nullptr) found.push_back({"sdot", sdot, kChains * 16});
  found.push_back({"smull, 32-bit sums", smull, kChains * 8});
  found.push_back({"smlal, 16-bit sums", smlal, kChains * 8});
  return found;
}

#else

std::vector<DotProgram> find_programs() { return {}; }

#endif

}  // namespace

const std::vector<DotProgram>& dot_programs() {
  static const std::vector<DotProgram> found = find_programs();
  return found;
}

}  // namespace potluck
