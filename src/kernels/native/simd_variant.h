// All kernels over lanes, and their list.
#pragma once
#include "simd_channel_attention.h"
#include "simd_matmul.h"
#include "simd_nibble_attention.h"

// What follows the name in a Kernels.
#define POTLUCK_SIMD_KERNELS                                                                                          \
  w4_matmul, bf16_matmul, quantize8, quantize4, hadamard, rmsnorm, rope, exp_many, silu_mul, gelu_mul, soft_cap,     \
      add_fixed, add_residual, store_key, store_value, attention_nibbles, attention<Channels<HalfKv>>, attention<Channels<FloatKv>>
