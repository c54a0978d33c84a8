// Where keys and values lie: pages, and steps in the planes of NibbleKv. For every instruction set.
#pragma once
#include "kernels.h"

namespace potluck {
namespace {

// One stored nibble of a plane, as in a w4 group.
inline void put_nibble(uint8_t* plane, int row, int column, int value) {
  uint8_t* byte = plane + column / 8 * 64 + row * 4 + column % 4;
  *byte = column % 8 < 4 ? uint8_t((*byte & 0xf0) | value) : uint8_t((*byte & 0x0f) | value << 4);
}

// step: -8 .. 7 with one plane, -128 .. 127 with two.
inline void put_step(const NibbleKv& kv, uint8_t* planes, int row, int column, int step) {
  if (kv.planes == 1) return put_nibble(planes, row, column, step + 8);
  put_nibble(planes, row, column, (step + 128) >> 4);
  put_nibble(planes + 256, row, column, (step + 128) & 15);
}

inline int levels_of(const NibbleKv& kv) { return kv.planes == 1 ? 8 : 128; }

inline const uint8_t* page_at(const AttentionArgs& a, int page) {
  return a.kv + size_t(a.pages[page]) * a.page_bytes;
}

}  // namespace
}  // namespace potluck
