// Sines and cosines that are the same on every machine: the C library's are not.
#pragma once

namespace potluck {

// c[i], s[i] = cos, sin of float(position) * frequencies[i].
void rope_row(int position, const float* frequencies, int half, float* c, float* s);

}  // namespace potluck
