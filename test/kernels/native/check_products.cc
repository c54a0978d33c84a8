// Products of panels with rows of activations.
#include "checks.h"
#include "inputs.h"

namespace potluck {
namespace {

constexpr size_t kGroupBytes = 288;

// Every kind of panel: any nibbles, the ends alone, and zeros (nibble 8).
void fill_panel(Random& random, uint8_t* panel, size_t groups, int style, Oddities oddities) {
  for (size_t g = 0; g < groups; g++, panel += kGroupBytes) {
    fill_bytes(random, panel, 256);
    for (int i = 0; i < 256 && style != 0; i++)
      panel[i] = style == 1 ? uint8_t((panel[i] & 0x80 ? 0xf0 : 0) | (panel[i] & 1 ? 0x0f : 0)) : uint8_t(0x88);
    for (size_t row = 0; row < 16; row++) {
      const uint16_t scale = any_half(random, oddities);
      std::memcpy(panel + 256 + row * 2, &scale, 2);
    }
  }
}

// Rows of QuantizedRows by the reference, as a4 says.
void fill_quantized(Random& random, uint8_t* base, size_t stride, int columns, const float* a4, int tokens, float size,
                    int style, Oddities oddities) {
  const int groups = columns / 32;
  for (int t = 0; t < tokens; t++, base += stride) {
    float* scale = reinterpret_cast<float*>(base + columns);
    int32_t* bias = reinterpret_cast<int32_t*>(scale + groups);
    for (int g = 0; g < groups; g += kBlockGroups) {
      float x[kBlockGroups * 32];
      fill(random, x, kBlockGroups * 32, size, oddities);
      for (int i = 0; i < kBlockGroups * 32 && style == 1; i++) x[i] = x[i] < 0 ? -size : size;
      for (int i = 0; i < kBlockGroups * 32 && t % 5 == 3; i++) x[i] = 0;
      const auto quantize = a4[g / kBlockGroups] == 0 ? kReferenceKernels.quantize8 : kReferenceKernels.quantize4;
      quantize(x, std::min(kBlockGroups, groups - g), reinterpret_cast<int8_t*>(base) + g * 32, scale + g, bias + g);
    }
  }
}

void check_w4(Checks& checks, Random& random, int blocks, int groups, int tokens, int style, Oddities oddities) {
  const size_t columns = size_t(groups) * 32, stride = quantized_row_bytes(columns);
  const Fenced<uint8_t> panel(size_t(blocks) * size_t(groups) * kGroupBytes), memory(stride * size_t(tokens));
  const float size = magnitudes_of_inputs()[size_t(random.below(int(magnitudes_of_inputs().size())))];
  fill_panel(random, panel.data(), size_t(blocks) * size_t(groups), style, oddities);
  const Fenced<float> a4(size_t(groups + kBlockGroups - 1) / kBlockGroups);
  for (size_t b = 0; b < a4.size(); b++) a4.data()[b] = float(random.below(2));
  fill_quantized(random, memory.data(), stride, int(columns), a4.data(), tokens, size, style, oddities);
  const QuantizedRows x{memory.data(), stride, columns, a4.data()};
  const size_t out_stride = size_t(blocks) * 16 + size_t(random.below(2)) * 5;
  checks.compare("w4_matmul",
                 text("blocks %d, groups %d, tokens %d, size %g, style %d, oddities %d", blocks, groups, tokens, double(size),
                      style, int(oddities)),
                 {{Kind::floats, out_stride * size_t(tokens)}}, [&](const Kernels& k, const std::vector<void*>& out) {
                   k.w4_matmul(panel.data(), blocks, &x, tokens, static_cast<float*>(out[0]), out_stride);
                   return 0;
                 });
}

void check_bf16(Checks& checks, Random& random, int blocks, int groups, int tokens, Oddities oddities) {
  const size_t columns = size_t(groups) * 32, x_stride = columns + size_t(random.below(2)) * 3;
  const Fenced<uint8_t> panel(size_t(blocks) * columns * 32);
  const Fenced<float> x(tokens == 0 ? 0 : x_stride * size_t(tokens - 1) + columns);
  const float size = magnitudes_of_inputs()[size_t(random.below(int(magnitudes_of_inputs().size())))];
  for (size_t i = 0; i < panel.size(); i += 2) {
    float w;
    fill(random, &w, 1, 1.0f, oddities);
    std::memcpy(panel.data() + i, reinterpret_cast<uint8_t*>(&w) + 2, 2);
  }
  fill(random, x.data(), x.size(), size, oddities);
  const size_t out_stride = size_t(blocks) * 16 + size_t(random.below(2)) * 5;
  checks.compare("bf16_matmul",
                 text("blocks %d, groups %d, tokens %d, size %g, oddities %d", blocks, groups, tokens, double(size),
                      int(oddities)),
                 {{Kind::floats, out_stride * size_t(tokens)}}, [&](const Kernels& k, const std::vector<void*>& out) {
                   k.bf16_matmul(panel.data(), blocks, int(columns), x.data(), x_stride, tokens,
                                 static_cast<float*>(out[0]), out_stride);
                   return 0;
                 });
}

}  // namespace

void check_products(Checks& checks) {
  Random random(21);
  for (const int blocks : {0, 1, 2, 3, 4, 5, 7})
    for (int tokens = 0; tokens <= kTokenChunk; tokens++)
      for (int kind = 0; kind < 4; kind++) {
        const int groups[] = {0, 1, 2, 3, 4, 5, 7, 11};
        const Oddities oddities = kind == 3 ? Oddities::some : Oddities::none;
        check_w4(checks, random, blocks, groups[random.below(8)], tokens, kind % 3, oddities);
        if (kind >= 2) check_bf16(checks, random, blocks, groups[random.below(6)], tokens, oddities);
      }
}

}  // namespace potluck
