// What this processor and its operating system can do. Each question is answered with null for yes, or with what is missing.
#pragma once

namespace potluck {

#if defined(__x86_64__)
const char* lacks_avx2();  // with FMA and F16C
const char* lacks_avx_vnni();
const char* lacks_avx512_vnni();  // with F, BW, VL and DQ
#elif defined(__aarch64__)
const char* lacks_neon_dot();
const char* lacks_neon_i8mm();  // with dot products
#endif

}  // namespace potluck
