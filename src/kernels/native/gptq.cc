#include "gptq.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <thread>
#include <vector>

#include "half.h"

// One copy of a loop for each vector width that the processor may have; all give the same bits.
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
#define POTLUCK_EACH_WIDTH __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define POTLUCK_EACH_WIDTH
#endif

namespace potluck {
namespace {

typedef double Lanes __attribute__((vector_size(64)));  // 8 columns, or 8 rows
constexpr int64_t kLanes = 8;
constexpr int64_t kGroup = kRoundingGroup;
constexpr int64_t kColumns = 2 * kLanes;  // columns of one inner block of a product
constexpr int64_t kRows = 4;              // its rows
constexpr int64_t kItemColumns = 64;      // columns of one item of work
constexpr int64_t kFactorBlock = 32;      // columns factored at a time; divides kItemColumns
constexpr int64_t kTokens = 256;          // tokens made double at a time
constexpr int64_t kRowLanes = 16;         // rows that are rounded together
constexpr int64_t kErrorChunk = 128;      // columns whose errors are added at a time: their factors stay in the first cache

inline Lanes load(const double* at) {
  Lanes x;
  std::memcpy(&x, at, sizeof x);
  return x;
}
inline void store(double* at, const Lanes& x) { std::memcpy(at, &x, sizeof x); }

// Calls call(item) for every item, spread over threads.
template <typename Call>
void each(int64_t items, int threads, const Call& call) {
  std::atomic<int64_t> next{0};
  const auto take = [&] {
    for (int64_t item; (item = next.fetch_add(1)) < items;) call(item);
  };
  std::vector<std::thread> others;
  const int64_t wanted = std::min<int64_t>(threads, items);
  try {
    for (int64_t i = 1; i < wanted; i++) others.emplace_back(take);
  } catch (...) {  // fewer threads then: the result is the same
  }
  take();
  for (std::thread& thread : others) thread.join();
}

// h[i][k] += sign * sum over t of x[t][i] * x[t][k], t rising, for k in [first, first + columns) and i from 0 to k rounded up to kRows.
POTLUCK_EACH_WIDTH
void update_columns(double* h, int64_t n, const double* x, int64_t stride, int64_t count, double sign, int64_t first,
                    int64_t columns) {
  for (int64_t k = first; k < first + columns; k += kColumns)
    for (int64_t i = 0; i < k + kColumns; i += kRows) {
      Lanes sum[kRows][2];
      for (int64_t r = 0; r < kRows; r++)
        for (int64_t c = 0; c < 2; c++) sum[r][c] = load(h + (i + r) * n + k + c * kLanes);
      for (int64_t t = 0; t < count; t++) {
        const double* row = x + t * stride;
        const Lanes right[2] = {load(row + k), load(row + k + kLanes)};
        for (int64_t r = 0; r < kRows; r++) {
          const double left = sign * row[i + r];
          for (int64_t c = 0; c < 2; c++) sum[r][c] += right[c] * left;
        }
      }
      for (int64_t r = 0; r < kRows; r++)
        for (int64_t c = 0; c < 2; c++) store(h + (i + r) * n + k + c * kLanes, sum[r][c]);
    }
}

// As update_columns, for all columns under `end` (a multiple of 32).
void update(double* h, int64_t n, const double* x, int64_t stride, int64_t count, double sign, int64_t end, int threads) {
  each((end + kItemColumns - 1) / kItemColumns, threads, [&](int64_t item) {
    const int64_t first = item * kItemColumns;
    update_columns(h, n, x, stride, count, sign, first, std::min(kItemColumns, end - first));
  });
}

// Row i of V, H = V V^T, in the columns [first, first + kFactorBlock) that lie right of the diagonal, from what is left of h.
void solve_row(double* h, int64_t n, int64_t first, int64_t i) {
  const int64_t low = std::max(first, i + 1);
  for (int64_t k = first + kFactorBlock - 1; k >= low; k--) {
    double sum = h[i * n + k];
    for (int64_t m = first + kFactorBlock - 1; m > k; m--) sum -= h[i * n + m] * h[k * n + m];
    h[i * n + k] = sum / h[k * n + k];
  }
}

// The columns of a block on the diagonal, from the last row up. False where a pivot is not positive.
bool factor_block(double* h, int64_t n, int64_t first) {
  for (int64_t i = first + kFactorBlock - 1; i >= first; i--) {
    solve_row(h, n, first, i);
    double sum = h[i * n + i];
    for (int64_t m = first + kFactorBlock - 1; m > i; m--) sum -= h[i * n + m] * h[i * n + m];
    if (!(sum > 0) || !std::isfinite(sum)) return false;
    h[i * n + i] = std::sqrt(sum);
  }
  return true;
}

bool damp(double* h, int64_t n, double damping) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += h[i * n + i];
  if (!std::isfinite(sum)) return false;
  const double more = sum > 0 ? damping * (sum / double(n)) : 1;
  for (int64_t i = 0; i < n; i++) h[i * n + i] += more;
  return true;
}

// To the nearest whole number, halves to even; |x| under 2^51.
inline double nearest(double x) { return (x + 6755399441055744.0) - 6755399441055744.0; }
inline double step(double x) {
  const double capped = x < 8 ? x : 8;
  return std::min(7.0, std::max(-8.0, nearest(capped > -9 ? capped : -9)));
}

// Where the weight of largest magnitude may come to lie, in steps: past -8 and 7 it is cut off, which at times costs less than
// coarser steps for all others.
constexpr double kTargets[] = {-8, -7.5, -8.5, -7, -9, 7, 7.5, 6.5, 8};
constexpr int kFits = 2;
constexpr float kMostScale = 65504;

// What one item of rounding works in.
struct RowScratch {
  explicit RowScratch(int64_t n) : weights(size_t(n * kRowLanes)), errors(size_t(n * kRowLanes)) {}
  std::vector<double> weights;  // [n, kRowLanes]
  std::vector<double> errors;   // [n, kRowLanes] w - w^ of the columns that are done
  double made_up[kGroup][kRowLanes];   // of the group: the sum over columns before it
  double wanted[kGroup][kRowLanes];    // of the group: values to round, if none of it were rounded
  double scale[kRowLanes];
};

// made_up[c] = sum over j < group of errors[j] * factor[j][group + c], j rising.
POTLUCK_EACH_WIDTH
void gather_errors(const double* factor, int64_t n, int64_t group, RowScratch* s) {
  std::memset(s->made_up, 0, sizeof s->made_up);
  for (int64_t begin = 0; begin < group; begin += kErrorChunk) {
    const int64_t end = std::min(group, begin + kErrorChunk);
    for (int64_t c = 0; c < kGroup; c += 4) {
      Lanes sum[4][2];
      for (int r = 0; r < 4; r++)
        for (int half = 0; half < 2; half++) sum[r][half] = load(s->made_up[c + r] + half * kLanes);
      for (int64_t j = begin; j < end; j++) {
        const double* error = s->errors.data() + j * kRowLanes;
        const Lanes low = load(error), high = load(error + kLanes);
        const double* a = factor + j * n + group + c;
        for (int r = 0; r < 4; r++) {
          sum[r][0] += low * a[r];
          sum[r][1] += high * a[r];
        }
      }
      for (int r = 0; r < 4; r++)
        for (int half = 0; half < 2; half++) store(s->made_up[c + r] + half * kLanes, sum[r][half]);
    }
  }
}

// What the group would best be, given the errors before it, if it were not rounded.
POTLUCK_EACH_WIDTH
void fill_wanted(const double* factor, int64_t n, int64_t group, RowScratch* s) {
  double error[kGroup][kRowLanes];
  for (int64_t c = 0; c < kGroup; c++)
    for (int64_t l = 0; l < kRowLanes; l++) {
      double sum = s->made_up[c][l];
      for (int64_t j = 0; j < c; j++) sum += error[j][l] * factor[(group + j) * n + group + c];
      error[c][l] = -sum;
      s->wanted[c][l] = s->weights[size_t((group + c) * kRowLanes + l)] + sum;
    }
}

// For each lane a scale of candidates, the one with the least squared error weighted by D.
POTLUCK_EACH_WIDTH
void fit_scales(const double* factor, int64_t n, int64_t group, RowScratch* s) {
  double extreme[kRowLanes] = {}, least[kRowLanes], weight[kGroup];
  for (int64_t c = 0; c < kGroup; c++) {
    weight[c] = factor[(group + c) * n + group + c];
    for (int64_t l = 0; l < kRowLanes; l++)
      extreme[l] = std::fabs(s->wanted[c][l]) > std::fabs(extreme[l]) ? s->wanted[c][l] : extreme[l];
  }
  for (int64_t l = 0; l < kRowLanes; l++) {
    s->scale[l] = 0;
    least[l] = INFINITY;
  }
  for (const double target : kTargets) {
    double scale[kRowLanes], error[kRowLanes] = {};
    for (int64_t l = 0; l < kRowLanes; l++) scale[l] = extreme[l] / target;
    for (int fit = 0; fit < kFits; fit++) {
      double product[kRowLanes] = {}, square[kRowLanes] = {};
      for (int64_t c = 0; c < kGroup; c++)
        for (int64_t l = 0; l < kRowLanes; l++) {
          const double z = step(s->wanted[c][l] / scale[l]);
          product[l] += s->wanted[c][l] * z * weight[c];
          square[l] += z * z * weight[c];
        }
      for (int64_t l = 0; l < kRowLanes; l++) scale[l] = square[l] > 0 ? product[l] / square[l] : scale[l];
    }
    for (int64_t l = 0; l < kRowLanes; l++) {
      const float bounded = std::min(kMostScale, std::max(-kMostScale, float(scale[l])));
      scale[l] = double(from_half(to_half_bits(bounded)));
    }
    for (int64_t c = 0; c < kGroup; c++)
      for (int64_t l = 0; l < kRowLanes; l++) {
        const double rest = s->wanted[c][l] - step(s->wanted[c][l] / scale[l]) * scale[l];
        error[l] += rest * rest * weight[c];
      }
    for (int64_t l = 0; l < kRowLanes; l++) {
      const bool better = scale[l] != 0 && error[l] < least[l];
      least[l] = better ? error[l] : least[l];
      s->scale[l] = better ? scale[l] : s->scale[l];
    }
  }
}

// Rounds the group with the scales found. nibbles: [kGroup, kRowLanes].
POTLUCK_EACH_WIDTH
void round_group(const double* factor, int64_t n, int64_t group, RowScratch* s, uint8_t* nibbles) {
  for (int64_t c = 0; c < kGroup; c++) {
    double* error = s->errors.data() + (group + c) * kRowLanes;
    for (int64_t l = 0; l < kRowLanes; l++) {
      double sum = s->made_up[c][l];
      for (int64_t j = 0; j < c; j++)
        sum += s->errors[size_t((group + j) * kRowLanes + l)] * factor[(group + j) * n + group + c];
      const double weight = s->weights[size_t((group + c) * kRowLanes + l)], scale = s->scale[l];
      const double z = scale == 0 ? 0 : step((weight + sum) / scale);
      error[l] = weight - z * scale;
      nibbles[c * kRowLanes + l] = uint8_t(int(z) + 8);
    }
  }
}

}  // namespace

void add_products(double* h, int64_t n, const float* x, int64_t tokens, int threads) {
  std::vector<double> wide(size_t(std::min(tokens, kTokens) * n));
  for (int64_t first = 0; first < tokens; first += kTokens) {
    const int64_t count = std::min(kTokens, tokens - first);
    each(count, threads, [&](int64_t t) {
      for (int64_t k = 0; k < n; k++) wide[size_t(t * n + k)] = double(x[(first + t) * n + k]);
    });
    update(h, n, wide.data(), n, count, 1, n, threads);
  }
}

bool factor_products(double* h, int64_t n, double damping, int threads) {
  if (!damp(h, n, damping)) return false;
  std::vector<double> panel(size_t(kFactorBlock * n));  // V of the block, transposed
  for (int64_t first = n - kFactorBlock; first >= 0; first -= kFactorBlock) {
    if (!factor_block(h, n, first)) return false;
    each((first + kItemColumns - 1) / kItemColumns, threads, [&](int64_t item) {
      const int64_t end = std::min(first, (item + 1) * kItemColumns);
      for (int64_t i = item * kItemColumns; i < end; i++) {
        solve_row(h, n, first, i);
        for (int64_t m = 0; m < kFactorBlock; m++) panel[size_t(m * n + i)] = h[i * n + first + m];
      }
    });
    update(h, n, panel.data(), n, kFactorBlock, -1, first, threads);
  }
  std::vector<double> pivots(static_cast<size_t>(n));
  for (int64_t k = 0; k < n; k++) pivots[size_t(k)] = h[k * n + k];
  each(n, threads, [&](int64_t j) {
    for (int64_t k = j + 1; k < n; k++) h[j * n + k] /= pivots[size_t(k)];
    h[j * n + j] *= pivots[size_t(j)];
  });
  return true;
}

void round_rows(const double* factor, int64_t n, const float* weights, int64_t rows, uint8_t* nibbles, uint16_t* scales,
                int threads) {
  each((rows + kRowLanes - 1) / kRowLanes, threads, [&](int64_t item) {
    RowScratch s(n);
    const int64_t first = item * kRowLanes, count = std::min(kRowLanes, rows - first);
    for (int64_t l = 0; l < count; l++)
      for (int64_t k = 0; k < n; k++) s.weights[size_t(k * kRowLanes + l)] = double(weights[(first + l) * n + k]);
    uint8_t found[kGroup * kRowLanes];
    for (int64_t group = 0; group < n; group += kGroup) {
      gather_errors(factor, n, group, &s);
      fill_wanted(factor, n, group, &s);
      fit_scales(factor, n, group, &s);
      round_group(factor, n, group, &s, found);
      for (int64_t l = 0; l < count; l++) {
        const int64_t row = first + l;
        for (int64_t c = 0; c < kGroup; c++) nibbles[row * n + group + c] = found[c * kRowLanes + l];
        scales[row * (n / kGroup) + group / kGroup] = to_half_bits(float(s.scale[l]));
      }
    }
  });
}

}  // namespace potluck
