// Error-compensating rounding of weights to 4 bits: GPTQ (arXiv 2210.17323) in the form of LDLQ (arXiv 2307.13304, section 3).
//
// With H = X^T X over the inputs that a panel sees, H = A D A^T, A unit upper triangular, D diagonal. A row w is rounded from
// column 0 on, each column after adding what the errors before it should be made up by:
//   w^[k] = round(w[k] + sum over j < k of (w[j] - w^[j]) * A[j][k])
//
// Everything is double precision, each number has one written order of additions, and nothing is contracted: the result does
// not depend on the processor or the number of threads.
#pragma once
#include <cstdint>

namespace potluck {

// Columns that share a scale.
constexpr int64_t kRoundingGroup = 32;

// Products and factors are upper triangles: for each group of 32 columns a panel of the rows down to the diagonal, [32, 32], [64, 32],
// ... float64, one behind the other. What a loop walks along lies together so, whatever the width.
constexpr int64_t triangle_bytes(int64_t n) { return n * (n + kRoundingGroup) / 2 * 8; }

// h += x^T x. h: triangle of n columns; x: [tokens, n] float32; n a multiple of 32.
void add_products(double* h, int64_t n, const float* x, int64_t tokens, int threads);

// Replaces h by A above the diagonal and D on it. `damping` times the mean of the diagonal is added to
// the diagonal first; a matrix of zeros counts as the identity. False where h is not finite.
bool factor_products(double* h, int64_t n, double damping, int threads);

// Rounds rows of weights ([rows, n] float32) to nibbles ([rows, n], value (nibble - 8) * scale) and scales ([rows, n / 32]
// IEEE half).
void round_rows(const double* factor, int64_t n, const float* weights, int64_t rows, uint8_t* nibbles, uint16_t* scales,
                int threads);

}  // namespace potluck
