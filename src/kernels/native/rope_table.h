// Sines and cosines that are the same on every machine: the C library's are not.
#pragma once

namespace potluck {

// c[i], s[i] = cos, sin of float(position) * frequencies[i], rounded to float, times magnitude.
void rope_row(int position, const float* frequencies, int half, float magnitude, float* c, float* s);

}  // namespace potluck
