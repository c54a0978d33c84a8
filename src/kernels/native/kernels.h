// The kernel interface. reference.cc defines the result of every function, bit for bit (docs/numerics.md); one file per
// instruction set gives the same results faster. A new instruction set is a new file and one line in variants.cc.
//
// Files with their own instruction set flags must include nothing but this header, <stdint.h>, <stddef.h> and
// intrinsics, and keep their own code in an anonymous namespace: an inline function of the standard library compiled
// there could be the copy that the linker keeps for everybody.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace potluck {

// Most tokens of one matmul call.
constexpr int kTokenChunk = 16;

// Groups of 32 columns of a block of 128, which has activations of 4 bits or of 8; the last block of a row may have fewer.
constexpr int kBlockGroups = 4;

// Rows of quantized activations; row t starts at base + t * stride and has
// q: int8 [columns], scale: float [columns / 32], bias: int32 [columns / 32] = -8 * sum of q in the group.
struct QuantizedRows {
  uint8_t* base;
  size_t stride;    // bytes, a multiple of 64
  size_t columns;   // padded to 32
  const float* a4;  // [blocks of 128]: 1 for 4 bits, where each group has a scale of its own, 0 for 8 bits, where all have the same
};

static inline size_t quantized_row_bytes(size_t columns) { return (columns + columns / 32 * 8 + 63) / 64 * 64; }

// Positions of a page of keys and values, and of one block of its keys.
constexpr int kPage = 32;
constexpr int kKeyBlock = 16;
// Positions that are weighed together; heads whose scores are in memory at a time.
constexpr int kStretchPages = 4, kStretch = kStretchPages * kPage;
constexpr int kHeadsAtOnce = 4;
// Floats beside `out` of what a head has so far: the sums of its weights in 16 lanes, then its largest score; the rest is unused.
constexpr int kRunning = 32;

// Keys and values of one k, v head in 4 bits (1 plane of nibbles) or 8 (2 planes: the high nibbles, then the low ones), as a
// page holds them. A plane is 256 bytes like the nibbles of a w4 group.
// keys: 2 blocks of 16 positions; a block is, for each group of 32 channels, its planes (row: position, column: channel)
//   and 16 halves, the scale of each position.
// values: for each 16 channels the planes (row: channel, column: position); then 32 halves, the scale of each position.
struct NibbleKv {
  int head_dim, planes;
  size_t groups() const { return size_t(head_dim + 31) / 32; }
  size_t plane_bytes() const { return size_t(planes) * 256; }
  size_t group_bytes() const { return plane_bytes() + 32; }
  size_t key_block_bytes() const { return groups() * group_bytes(); }
  size_t values_at() const { return 2 * key_block_bytes(); }
  size_t value_scales_at() const { return values_at() + size_t(head_dim + 15) / 16 * plane_bytes(); }
  size_t bytes() const { return value_scales_at() + 64; }
};

// Attention of some query heads of one token with one k, v head. All heads share the pages.
struct AttentionArgs {
  const float* q;        // [heads, head_dim], rotated and scaled
  int heads;
  int head_dim;
  const uint8_t* kv;     // first page of the store, at this tile's part
  const uint8_t* next;   // the same of the call that this thread is likely to make next, for the same pages; or null
  size_t page_bytes;     // from page to page
  const int32_t* pages;  // [ceil(positions / 32)] page numbers
  int first;             // keys to look at: first .. positions - 1
  int positions;
  float soft_cap;        // scores become cap * tanh(score / cap); 0: they stay
  int planes;            // of nibbles, for attention_nibbles
  float* scores;         // scratch [kHeadsAtOnce, kStretch]
  float* running;        // scratch [heads, kRunning]
  uint8_t* queries;      // scratch for attention_nibbles: [heads, quantized_row_bytes(head_dim padded to 32)]
  float* out;            // [heads, head_dim], nothing behind it is touched

  int first_page() const { return first / kPage; }
  int past_page() const { return (positions + kPage - 1) / kPage; }
};

struct Kernels {
  const char* name;

  // out[t * out_stride + 16 * b + r] for `blocks` row blocks of a panel, tokens 0 .. tokens - 1 (at most kTokenChunk).
  void (*w4_matmul)(const uint8_t* panel, int blocks, const QuantizedRows* x, int tokens, float* out,
                    size_t out_stride);
  // x: [tokens, x_stride] floats of which `columns` (a multiple of 32) count.
  void (*bf16_matmul)(const uint8_t* panel, int blocks, int columns, const float* x, size_t x_stride, int tokens,
                      float* out, size_t out_stride);

  // x: [groups * 32]; to 8 bits, -127 .. 127, where each block of 128 has one scale (written for each of its groups), and to
  // 4 bits, -8 .. 7, where each 32 have one.
  void (*quantize8)(const float* x, int groups, int8_t* q, float* scale, int32_t* bias);
  void (*quantize4)(const float* x, int groups, int8_t* q, float* scale, int32_t* bias);
  // Each 32 of x become H x, H the Hadamard matrix of +1 and -1.
  void (*hadamard)(float* x, int groups);

  // y[0 .. n) = rmsnorm(x) * weight; y[n .. round_up(n, 32)) = 0.
  void (*rmsnorm)(const float* x, const float* weight, int n, float epsilon, float* y);

  // Rotates x: [2 * half] by c, s: [half], then multiplies by `scale`.
  void (*rope)(float* x, const float* c, const float* s, int half, float scale);

  void (*exp)(const float* x, int n, float* y);
  // h = gate / (1 + exp(-gate)) * up
  void (*silu_mul)(const float* gate, const float* up, int n, float* h);
  // h = gate / (1 + exp(-z)) * up, z = gate * (kGelu1 + kGelu3 * gate^2): GELU by its tanh approximation
  void (*gelu_mul)(const float* gate, const float* up, int n, float* h);
  // x = cap * tanh(x / cap), as cap * (1 - 2 / (exp(x * (2 / cap)) + 1))
  void (*soft_cap)(float* x, int n, float cap);

  // partial[i] += fixed(v[i] * scale[i]); returns how many were clamped or not a number.
  int64_t (*add_fixed)(const float* v, const float* scale, int n, float limit, int32_t* partial);
  // residual[i] += float(partial[i]) * inverse[i]
  void (*add_residual)(float* residual, const int32_t* partial, const float* inverse, int n);

  // Puts a key or a value, [head_dim], to place `at` (0 .. 31) of a page.
  void (*store_key)(const NibbleKv* kv, const float* key, int at, uint8_t* page);
  void (*store_value)(const NibbleKv* kv, const float* value, int at, uint8_t* page);
  // Keys and values are nibbles, halves or floats.
  void (*attention_nibbles)(const AttentionArgs* args);
  void (*attention_half)(const AttentionArgs* args);
  void (*attention_float)(const AttentionArgs* args);
};

extern const Kernels kReferenceKernels;
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvxVnniKernels;
extern const Kernels kAvx512VnniKernels;
#elif defined(__aarch64__)
extern const Kernels kNeonKernels;
extern const Kernels kNeonDotKernels;
extern const Kernels kNeonI8mmKernels;
#endif

}  // namespace potluck
