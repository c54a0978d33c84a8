// Products of panels with rows of activations, over the lanes of simd_kernels.h. The including file also defines
//   template <int T, class Use> void w4_group(nibbles, q, bias, stride, use)
// which calls use(t, I) for t = 0 .. T - 1 with the exact sums of a group: lane r is the row's 32 products (nibble - 8) * q.
// nibbles: 256 bytes as in tile_shape.h; q: int8 [32] and bias: int32 of token 0, those of token t `stride` bytes on.
#pragma once
#include "simd_sums.h"

namespace potluck {
namespace {

// --- w4 ---

// Bytes of one group: nibbles, then 16 halves.
constexpr size_t kGroupBytes = 288;
// Groups that are asked of memory before their turn. With more than one token a processor's own prefetching falls behind: 8
// tokens took 1.4 times as long without this, and 1.05 times as long without the second level cache on the way; with one
// token that costs a quarter. Under 4 tokens: kGroupsAhead (of two streams further ahead: 3 %), else kGroupsLater into the
// second level cache, and where there are many registers kGroupsSoon into the first, too; with few, a group takes so long
// that asking twice is only more to do.
constexpr size_t kGroupsAhead = kStreams > 1 ? 32 : 16, kGroupsSoon = 8, kGroupsLater = 48;

template <int T>
inline void prefetch_group(const uint8_t* group) {
  constexpr bool kMany = T >= 4, kFast = Lanes::kRegisters >= 32;
  for (size_t line = 0; line < kGroupBytes; line += 64) {
    if (!kMany || kFast) __builtin_prefetch(group + (kMany ? kGroupsSoon : kGroupsAhead) * kGroupBytes + line, 0, 3);
    if (kMany) __builtin_prefetch(group + kGroupsLater * kGroupBytes + line, 0, 2);
  }
}

inline F scale_at(const uint8_t* at) {
  float scale;
  __builtin_memcpy(&scale, at, 4);
  return Lanes::set1(scale);
}

// B row blocks, `apart` bytes from one to the next, times T tokens; the sum of block b and token t is b * T + t.
template <int B, int T>
struct Blocks {
  size_t apart, stride;  // stride: bytes from one token's row to the next one's

  // Adds the products of `count` groups with activations of 4 bits to acc.
  void a4_groups(const uint8_t* group, size_t count, const uint8_t* q, const uint8_t* scale, const uint8_t* bias,
                 Sums<B * T>& acc) const {
#pragma GCC unroll 1
    for (size_t g = 0; g < count; g++, group += kGroupBytes, q += 32, scale += 4, bias += 4) {
#pragma GCC unroll 4
      for (int b = 0; b < B; b++) {
        const uint8_t* at = group + size_t(b) * apart;
        prefetch_group<T>(at);
        const F weight_scales = Lanes::load_half(at + 256);
        w4_group<T>(at, q, bias, stride, [&](int t, I sum) __attribute__((always_inline)) {
          acc.add(b * T + t, Lanes::to_float(sum), Lanes::mul(weight_scales, scale_at(scale + size_t(t) * stride)));
        });
      }
    }
  }

  // The same for 8 bits, where all groups have one scale: it comes last. One loop for both, with a call for what differs, was
  // compiled to half the speed of 4 bits with 16 registers.
  void a8_groups(const uint8_t* group, size_t count, const uint8_t* q, const uint8_t* scale, const uint8_t* bias,
                 Sums<B * T>& acc) const {
    Sums<B * T> block;
#pragma GCC unroll 1
    for (size_t g = 0; g < count; g++, group += kGroupBytes, q += 32, bias += 4) {
#pragma GCC unroll 4
      for (int b = 0; b < B; b++) {
        const uint8_t* at = group + size_t(b) * apart;
        prefetch_group<T>(at);
        const F weight_scales = Lanes::load_half(at + 256);
        w4_group<T>(at, q, bias, stride, [&](int t, I sum) __attribute__((always_inline)) {
          block.add(b * T + t, Lanes::to_float(sum), weight_scales);
        });
      }
    }
#pragma GCC unroll 4
    for (int b = 0; b < B; b++)
#pragma GCC unroll 8
      for (int t = 0; t < T; t++) acc.add(b * T + t, block.of(b * T + t), scale_at(scale + size_t(t) * stride));
  }

  void multiply(const uint8_t* panel, size_t groups, const QuantizedRows& x, size_t token, float* out, size_t out_apart,
                size_t out_stride) const {
    const uint8_t* q = x.base + token * stride;
    const uint8_t* scale = q + x.columns;
    const uint8_t* bias = scale + groups * 4;
    Sums<B * T> acc;
    for (const float* a4 = x.a4; groups > 0; a4++) {
      const size_t count = groups < kBlockGroups ? groups : kBlockGroups;
      if (*a4 != 0)
        a4_groups(panel, count, q, scale, bias, acc);
      else
        a8_groups(panel, count, q, scale, bias, acc);
      groups -= count;
      panel += count * kGroupBytes;
      q += count * 32;
      scale += count * 4;
      bias += count * 4;
    }
#pragma GCC unroll 4
    for (int b = 0; b < B; b++)
#pragma GCC unroll 8
      for (int t = 0; t < T; t++) Lanes::store(out + size_t(b) * out_apart + (token + size_t(t)) * out_stride, acc.of(b * T + t));
  }
};

// All tokens from `token` on, at most T at a time.
template <int B, int T>
inline void all_tokens(const uint8_t* panel, size_t apart, const QuantizedRows& x, int token, int tokens, float* out,
                       size_t out_apart, size_t out_stride) {
  const size_t groups = x.columns / 32;
  for (; token + T <= tokens; token += T)
    Blocks<B, T>{apart, x.stride}.multiply(panel, groups, x, size_t(token), out, out_apart, out_stride);
  if constexpr (T > 1) all_tokens<B, T / 2>(panel, apart, x, token, tokens, out, out_apart, out_stride);
}

// Few tokens read kStreams parts of the row blocks at once: a processor that follows several streams asks memory for more.
void w4_matmul(const uint8_t* panel, int blocks, const QuantizedRows* x, int tokens, float* out, size_t out_stride) {
  const size_t block_bytes = x->columns / 32 * kGroupBytes;
  if (kStreams > 1 && tokens <= 2) {
    const int part = blocks / kStreams;
    for (int b = 0; b < part; b++)
      all_tokens<kStreams, 2>(panel + size_t(b) * block_bytes, size_t(part) * block_bytes, *x, 0, tokens, out + b * 16,
                              size_t(part) * 16, out_stride);
    panel += size_t(part * kStreams) * block_bytes;
    out += part * kStreams * 16;
    blocks -= part * kStreams;
  }
  for (int b = 0; b < blocks; b++, panel += block_bytes, out += 16)
    all_tokens<1, kW4Tokens>(panel, 0, *x, 0, tokens, out, 0, out_stride);
}

// --- bf16 ---

// B row blocks times T tokens: B * T chains of additions in flight.
template <int B, int T>
inline void bf16_part(const uint8_t* panel, size_t block_bytes, int columns, const float* x, size_t x_stride, float* out,
                      size_t out_stride) {
  F acc[B][T];
  for (int b = 0; b < B; b++)
    for (int t = 0; t < T; t++) acc[b][t] = Lanes::set1(0.0f);
  for (int k = 0; k < columns; k++) {
    F w[B];
    for (int b = 0; b < B; b++) w[b] = Lanes::load_bf16(panel + size_t(b) * block_bytes + size_t(k) * 32);
    for (int t = 0; t < T; t++) {
      const F xs = Lanes::set1(x[size_t(t) * x_stride + size_t(k)]);
      for (int b = 0; b < B; b++) acc[b][t] = Lanes::fma(w[b], xs, acc[b][t]);
    }
  }
  for (int b = 0; b < B; b++)
    for (int t = 0; t < T; t++) Lanes::store(out + size_t(t) * out_stride + size_t(b) * 16, acc[b][t]);
}

template <int B, int T>
inline void bf16_blocks(const uint8_t* panel, int blocks, int columns, const float* x, size_t x_stride, float* out,
                        size_t out_stride) {
  const size_t block_bytes = size_t(columns) * 32;
  int b = 0;
  for (; b + B <= blocks; b += B)
    bf16_part<B, T>(panel + size_t(b) * block_bytes, block_bytes, columns, x, x_stride, out + size_t(b) * 16, out_stride);
  for (; b < blocks; b++)
    bf16_part<1, T>(panel + size_t(b) * block_bytes, block_bytes, columns, x, x_stride, out + size_t(b) * 16, out_stride);
}

void bf16_matmul(const uint8_t* panel, int blocks, int columns, const float* x, size_t x_stride, int tokens, float* out,
                 size_t out_stride) {
  constexpr bool kMany = Lanes::kRegisters >= 32;
  int t = 0;
  if constexpr (kMany)
    for (; t + 8 <= tokens; t += 8)
      bf16_blocks<2, 8>(panel, blocks, columns, x + size_t(t) * x_stride, x_stride, out + size_t(t) * out_stride, out_stride);
  for (; t + 4 <= tokens; t += 4)
    bf16_blocks<kMany ? 4 : 1, 4>(panel, blocks, columns, x + size_t(t) * x_stride, x_stride,
                                  out + size_t(t) * out_stride, out_stride);
  for (; t + 2 <= tokens; t += 2)
    bf16_blocks<kMany ? 4 : 2, 2>(panel, blocks, columns, x + size_t(t) * x_stride, x_stride,
                                  out + size_t(t) * out_stride, out_stride);
  for (; t < tokens; t++)
    bf16_blocks<4, 1>(panel, blocks, columns, x + size_t(t) * x_stride, x_stride, out + size_t(t) * out_stride, out_stride);
}

}  // namespace
}  // namespace potluck
