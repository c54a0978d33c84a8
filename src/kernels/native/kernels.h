// The kernel interface. reference.cc defines the result of every function, bit for bit (docs/numerics.md); one file per
// instruction set gives the same results faster. A new instruction set is a new file and one line in dispatch.cc.
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

// Rows of activations quantized in groups of 32; row t starts at base + t * stride and has
// q: int8 [columns], scale: float [columns / 32], bias: int32 [columns / 32] = -8 * sum of q in the group.
struct QuantizedRows {
  uint8_t* base;
  size_t stride;   // bytes, a multiple of 64
  size_t columns;  // padded to 32
};

static inline size_t quantized_row_bytes(size_t columns) { return (columns + columns / 32 * 8 + 63) / 64 * 64; }

// Attention of some query heads of one token with one k, v head. All heads share the pages.
struct AttentionArgs {
  const float* q;        // [heads, head_dim], rotated and scaled
  int heads;
  int head_dim;
  const uint8_t* kv;     // first page of the store, at this tile's part
  size_t page_bytes;     // from page to page
  const int32_t* pages;  // [ceil(positions / 16)] page numbers
  int first;             // keys to look at: first .. positions - 1
  int positions;
  float soft_cap;        // scores become cap * tanh(score / cap); 0: they stay
  float* scores;         // scratch [min(heads, 4), positions rounded up to 16]
  float* out;            // [heads, head_dim], nothing behind it is touched
};

struct Kernels {
  const char* name;

  // out[t * out_stride + 16 * b + r] for `blocks` row blocks of a panel, tokens 0 .. tokens - 1 (at most kTokenChunk).
  void (*w4_matmul)(const uint8_t* panel, int blocks, const QuantizedRows* x, int tokens, float* out,
                    size_t out_stride);
  // x: [tokens, x_stride] floats of which `columns` (a multiple of 32) count.
  void (*bf16_matmul)(const uint8_t* panel, int blocks, int columns, const float* x, size_t x_stride, int tokens,
                      float* out, size_t out_stride);

  // x: [groups * 32].
  void (*quantize)(const float* x, int groups, int8_t* q, float* scale, int32_t* bias);

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

  void (*to_half)(const float* x, int n, uint16_t* y);
  // Keys and values are halves (attention) or floats (attention_float).
  void (*attention)(const AttentionArgs* args);
  void (*attention_float)(const AttentionArgs* args);
};

extern const Kernels kReferenceKernels;
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512VnniKernels;
#endif

}  // namespace potluck
