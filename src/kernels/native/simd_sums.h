// Sums of products over the lanes of simd_kernels.h.
#pragma once
#include "simd_kernels.h"

namespace potluck {
namespace {

// N chains of additions, each from zeros or from what it is set to. Where registers are few they are in memory, at an address that
// the compiler does not follow: it would move them to registers, and so the products of a group to memory.
template <int N, bool kInRegisters = (N <= Lanes::kSums)>
class Sums {
  F sum_[N];

 public:
  Sums() {
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) sum_[i] = Lanes::set1(0.0f);
  }
  void set(int i, F x) { sum_[i] = x; }
  void add(int i, F x, F y) { sum_[i] = Lanes::fma(x, y, sum_[i]); }
  F of(int i) const { return sum_[i]; }
};

template <int N>
class Sums<N, false> {
  alignas(64) float sum_[N * 16];
  float* at_ = sum_;

 public:
  Sums() {
    __asm__("" : "+r"(at_) : : "memory");
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) Lanes::store(at_ + i * 16, Lanes::set1(0.0f));
  }
  Sums(const Sums&) = delete;
  void set(int i, F x) { Lanes::store(at_ + i * 16, x); }
  void add(int i, F x, F y) { Lanes::store(at_ + i * 16, Lanes::fma(x, y, Lanes::load(at_ + i * 16))); }
  F of(int i) const { return Lanes::load(at_ + i * 16); }
};

}  // namespace
}  // namespace potluck
