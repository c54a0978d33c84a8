#include "rope_table.h"

#include <cmath>
#include <cstdint>

namespace potluck {
namespace {

// pi / 2 in two parts (the first has 33 bits, so its product with a small integer is exact) and its inverse; the
// polynomials are those of FreeBSD's msun for [-pi/4, pi/4] (k_sin.c, k_cos.c), evaluated by Horner without fma.
constexpr double kTwoByPi = 6.36619772367581382433e-01;
constexpr double kHalfPiHigh = 1.57079632673412561417e+00;
constexpr double kHalfPiLow = 6.07710050650619224932e-11;

double sine(double r) {
  const double z = r * r;
  double p = 1.58969099521155010221e-10;
  p = p * z + -2.50507602534068634195e-08;
  p = p * z + 2.75573137070700676789e-06;
  p = p * z + -1.98412698298579493134e-04;
  p = p * z + 8.33333333332248946124e-03;
  p = p * z + -1.66666666666666324348e-01;
  return r + r * z * p;
}

double cosine(double r) {
  const double z = r * r;
  double p = -1.13596475577881948265e-11;
  p = p * z + 2.08757232129817482790e-09;
  p = p * z + -2.75573143513906633035e-07;
  p = p * z + 2.48015872894767294178e-05;
  p = p * z + -1.38888888888741095749e-03;
  p = p * z + 4.16666666666666019037e-02;
  return 1.0 - (0.5 * z - z * z * p);
}

}  // namespace

void rope_row(int position, const float* frequencies, int half, float magnitude, float* c, float* s) {
  for (int i = 0; i < half; i++) {
    const float angle = float(position) * frequencies[i];
    const double n = std::rint(double(angle) * kTwoByPi);
    const double r = (double(angle) - n * kHalfPiHigh) - n * kHalfPiLow;
    const double sin_r = sine(r), cos_r = cosine(r);
    const int quarter = int(int64_t(n) & 3);
    const double values[4] = {cos_r, -sin_r, -cos_r, sin_r};  // cos(r + quarter * pi / 2)
    c[i] = float(values[quarter]) * magnitude;
    s[i] = float(values[(quarter + 3) & 3]) * magnitude;
  }
}

}  // namespace potluck
