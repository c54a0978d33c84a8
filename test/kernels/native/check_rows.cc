// Functions that go over a row of floats.
#include "checks.h"
#include "inputs.h"

namespace potluck {
namespace {

constexpr Oddities kBoth[] = {Oddities::none, Oddities::some};

size_t to_32(int n) { return size_t(n + 31) / 32 * 32; }

using Quantize = void (*Kernels::*)(const float*, int, int8_t*, float*, int32_t*);

void compare_quantized(Checks& checks, const char* name, Quantize quantize, const std::string& where, const Fenced<float>& x) {
  const size_t groups = x.size() / 32;
  checks.compare(name, where, {{Kind::bytes, x.size()}, {Kind::floats, groups}, {Kind::ints, groups}},
                 [&](const Kernels& k, const std::vector<void*>& out) {
                   (k.*quantize)(x.data(), int(groups), static_cast<int8_t*>(out[0]), static_cast<float*>(out[1]),
                                 static_cast<int32_t*>(out[2]));
                   return 0;
                 });
}

// far: the value whose step is 1.
void check_quantizer(Checks& checks, const char* name, Quantize quantize, float far) {
  Random random(11);
  for (const int groups : {0, 1, 2, 3, 7}) {
    const Fenced<float> x(size_t(groups) * 32);
    for (const float size : magnitudes_of_inputs())
      for (const Oddities oddities : kBoth) {
        fill(random, x.data(), x.size(), size, oddities);
        // One group of zeros, one whose ends are the same but for the sign.
        for (size_t i = 0; i < 32 && groups > 2; i++) x[32 + i] = 0, x[64 + i] = i % 2 ? size : -size;
        const std::string where = text("groups %d, size %g, oddities %d", groups, double(size), int(oddities));
        compare_quantized(checks, name, quantize, where, x);
      }
    for (size_t g = 0; g < size_t(groups); g++) fill_ties(random, x.data() + g * 32, 32, far);
    compare_quantized(checks, name, quantize, text("groups %d, ties", groups), x);
  }
}

// f: y from x, both [n].
void check_map(Checks& checks, const char* name, uint64_t seed,
               const std::function<void(const Kernels&, const float* x, const float* other, int n, float* y)>& f) {
  Random random(seed);
  for (const int n : sizes())
    for (const float size : magnitudes_of_inputs())
      for (const Oddities oddities : kBoth) {
        const Fenced<float> x{size_t(n)}, other{size_t(n)};
        fill(random, x.data(), x.size(), size, oddities);
        fill(random, other.data(), other.size(), 3.0f, oddities);
        // In place functions find x where they write.
        checks.compare(name, text("n %d, size %g, oddities %d", n, double(size), int(oddities)),
                       {{Kind::floats, size_t(n), x.data()}}, [&](const Kernels& k, const std::vector<void*>& out) {
                         f(k, x.data(), other.data(), n, static_cast<float*>(out[0]));
                         return 0;
                       });
      }
}

void check_rmsnorm(Checks& checks) {
  Random random(12);
  for (const int n : sizes())
    for (const float size : magnitudes_of_inputs())
      for (const Oddities oddities : kBoth) {
        const Fenced<float> x{size_t(n)}, weight{size_t(n)};
        fill(random, x.data(), x.size(), size, oddities);
        fill(random, weight.data(), weight.size(), 2.0f, Oddities::none);
        checks.compare("rmsnorm", text("n %d, size %g, oddities %d", n, double(size), int(oddities)),
                       {{Kind::floats, to_32(n)}}, [&](const Kernels& k, const std::vector<void*>& out) {
                         k.rmsnorm(x.data(), weight.data(), n, 1e-5f, static_cast<float*>(out[0]));
                         return 0;
                       });
      }
}

void check_rope(Checks& checks) {
  Random random(13);
  for (const int half : sizes())
    for (const Oddities oddities : kBoth) {
      const Fenced<float> x(size_t(half) * 2), c{size_t(half)}, s{size_t(half)};
      fill(random, x.data(), x.size(), 5.0f, oddities);
      fill(random, c.data(), c.size(), 1.0f, Oddities::none);
      fill(random, s.data(), s.size(), 1.0f, Oddities::none);
      checks.compare("rope", text("half %d, oddities %d", half, int(oddities)), {{Kind::floats, x.size(), x.data()}},
                     [&](const Kernels& k, const std::vector<void*>& out) {
                       k.rope(static_cast<float*>(out[0]), c.data(), s.data(), half, 0.125f);
                       return 0;
                     });
    }
}

void check_hadamard(Checks& checks) {
  Random random(14);
  for (const int groups : {0, 1, 2, 3, 7})
    for (const float size : magnitudes_of_inputs())
      for (const Oddities oddities : kBoth) {
        const Fenced<float> x(size_t(groups) * 32);
        fill(random, x.data(), x.size(), size, oddities);
        checks.compare("hadamard", text("groups %d, size %g, oddities %d", groups, double(size), int(oddities)),
                       {{Kind::floats, x.size(), x.data()}}, [&](const Kernels& k, const std::vector<void*>& out) {
                         k.hadamard(static_cast<float*>(out[0]), groups);
                         return 0;
                       });
      }
}

}  // namespace

void check_quantize(Checks& checks) {
  check_quantizer(checks, "quantize8", &Kernels::quantize8, 127.0f);
  check_quantizer(checks, "quantize4", &Kernels::quantize4, -8.0f);
}

void check_rows(Checks& checks) {
  check_rmsnorm(checks);
  check_rope(checks);
  check_hadamard(checks);
  check_map(checks, "exp", 15, [](const Kernels& k, const float* x, const float*, int n, float* y) { k.exp(x, n, y); });
  check_map(checks, "silu_mul", 16, [](const Kernels& k, const float* x, const float* up, int n, float* y) {
    k.silu_mul(x, up, n, y);
  });
  check_map(checks, "gelu_mul", 17, [](const Kernels& k, const float* x, const float* up, int n, float* y) {
    k.gelu_mul(x, up, n, y);
  });
  check_map(checks, "soft_cap", 18, [](const Kernels& k, const float*, const float*, int n, float* y) {
    k.soft_cap(y, n, 30.0f);
  });
}

void check_sums(Checks& checks) {
  Random random(19);
  for (const int n : sizes())
    for (const float limit : {2147483520.0f, 536870880.0f, 1000.0f})
      for (const Oddities oddities : kBoth) {
        const Fenced<float> v{size_t(n)}, scale{size_t(n)};
        const Fenced<int32_t> partial{size_t(n)};
        fill(random, v.data(), v.size(), oddities == Oddities::some ? 4e9f : limit / 5, oddities);
        for (size_t i = 0; i < size_t(n); i++) {
          scale[i] = std::ldexp(1.0f, random.below(5) - 2);
          partial[i] = int32_t(random.next()) / 2;
        }
        if (n > 0) v[size_t(n) / 2] = limit, scale[size_t(n) / 2] = 1;  // the largest that is not clamped
        const std::string where = text("n %d, limit %g, oddities %d", n, double(limit), int(oddities));
        checks.compare("add_fixed", where, {{Kind::ints, size_t(n), partial.data()}},
                       [&](const Kernels& k, const std::vector<void*>& out) {
                         return k.add_fixed(v.data(), scale.data(), n, limit, static_cast<int32_t*>(out[0]));
                       });
        checks.compare("add_residual", where, {{Kind::floats, size_t(n), v.data()}},
                       [&](const Kernels& k, const std::vector<void*>& out) {
                         k.add_residual(static_cast<float*>(out[0]), partial.data(), scale.data(), n);
                         return 0;
                       });
      }
}

}  // namespace potluck
