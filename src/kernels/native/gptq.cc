#include "gptq.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <thread>
#include <vector>

#include "half.h"

// A function for each vector width that the processor may have, of a template over vectors of that width: a compiler takes wider
// ones apart in memory. Where a template does not name them, it is loops that the compiler makes vectors of. All give the same bits.
#define POTLUCK_INLINE inline __attribute__((always_inline))
#if defined(__x86_64__)
#define POTLUCK_WIDTHS(name, of, arguments, ...)                                                          \
  __attribute__((target("avx512f"))) void name##_512 arguments { of<Vector<64>> __VA_ARGS__; }            \
  __attribute__((target("avx2"))) void name##_256 arguments { of<Vector<32>> __VA_ARGS__; }               \
  void name##_128 arguments { of<Vector<16>> __VA_ARGS__; }                                               \
  void(*const name) arguments = __builtin_cpu_supports("avx512f") ? name##_512                            \
                                : __builtin_cpu_supports("avx2")  ? name##_256                            \
                                                                  : name##_128;
#else
#define POTLUCK_WIDTHS(name, of, arguments, ...) \
  void name arguments { of<Vector<16>> __VA_ARGS__; }
#endif

namespace potluck {
namespace {

template <int Bytes>
struct Vector {
  typedef double Lanes __attribute__((vector_size(Bytes)));  // of columns, or of rows
  static constexpr int64_t kLanes = Bytes / 8;
};
constexpr int64_t kGroup = kRoundingGroup;
constexpr int64_t kColumns = 16;          // columns of one inner block of a product
constexpr int64_t kRows = 4;              // its rows
constexpr int64_t kItemColumns = 64;      // columns of one item of work, a multiple of kGroup
constexpr int64_t kTokens = 256;          // tokens made double at a time
constexpr int64_t kRowLanes = 16;         // rows that are rounded together
constexpr int64_t kErrorChunk = 128;      // columns whose errors are added at a time: their factors stay in the first cache

// Two vectors, each by itself: an array would be copied by way of memory.
template <class Lanes>
POTLUCK_INLINE void copy_two(Lanes* to, const double* from) {
  __builtin_memcpy(to, from, sizeof *to);
  __builtin_memcpy(to + 1, from + sizeof *to / sizeof *from, sizeof *to);
}
template <class Lanes>
POTLUCK_INLINE void copy_two(double* to, const Lanes* from) {
  __builtin_memcpy(to, from, sizeof *from);
  __builtin_memcpy(to + sizeof *from / sizeof *to, from + 1, sizeof *from);
}

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

// The panel of columns [k, k + kGroup), k a multiple of kGroup: [k + kGroup rows, kGroup].
inline double* panel_at(double* h, int64_t k) { return h + k * (k + kGroup) / 2; }
inline const double* panel_at(const double* h, int64_t k) { return h + k * (k + kGroup) / 2; }
inline double* diagonal(double* h, int64_t k) { return panel_at(h, k / kGroup * kGroup) + k * kGroup + k % kGroup; }

// Numbers that come together in a product lie together: x[t][k] at [k / kColumns][t][k % kColumns].
inline double* packed_at(double* packed, int64_t count, int64_t t, int64_t k) {
  return packed + (k / kColumns * count + t) * kColumns + k % kColumns;
}

// h[i][k] += sign * sum over t of x[t][i] * x[t][k], t rising, for k in the block of kColumns at `k` and i in that at `i`.
template <class V>
POTLUCK_INLINE void update_block_of(double* h, const double* packed, int64_t count, double sign, int64_t i, int64_t k) {
  using Lanes = typename V::Lanes;
  const double* rows = packed + i * count;
  const double* columns = packed + k * count;
  double* at = panel_at(h, k / kGroup * kGroup) + i * kGroup + k % kGroup;
  for (int64_t part = 0; part < kColumns; part += 2 * V::kLanes)
    for (int64_t first = 0; first < kColumns; first += kRows) {
      Lanes sum[kRows][2];
      for (int64_t r = 0; r < kRows; r++) copy_two(sum[r], at + (first + r) * kGroup + part);
      for (int64_t t = 0; t < count; t++) {
        Lanes right[2];
        copy_two(right, columns + t * kColumns + part);
        for (int64_t r = 0; r < kRows; r++) {
          const double left = sign * rows[t * kColumns + first + r];
          for (int64_t c = 0; c < 2; c++) sum[r][c] += right[c] * left;
        }
      }
      for (int64_t r = 0; r < kRows; r++) copy_two(at + (first + r) * kGroup + part, sum[r]);
    }
}

POTLUCK_WIDTHS(update_block, update_block_of,
               (double* h, const double* packed, int64_t count, double sign, int64_t i, int64_t k),
               (h, packed, count, sign, i, k))

// As update_block, for all columns under `end` (a multiple of kGroup) and the rows of their panels; the widest first.
void update(double* h, const double* packed, int64_t count, double sign, int64_t end, int threads) {
  const int64_t items = (end + kItemColumns - 1) / kItemColumns;
  each(items, threads, [&](int64_t item) {
    const int64_t first = (items - 1 - item) * kItemColumns, last = std::min(end, first + kItemColumns);
    for (int64_t i = 0; i < last; i += kColumns)
      for (int64_t k = std::max(first, i / kGroup * kGroup); k < last; k += kColumns) update_block(h, packed, count, sign, i, k);
  });
}

// Row i of V, H = V V^T, in the columns of a panel that lie right of the diagonal, from what is left of h. first: its first column.
void solve_row(double* panel, int64_t first, int64_t i) {
  double* row = panel + i * kGroup;
  for (int64_t k = kGroup - 1; k >= std::max<int64_t>(0, i + 1 - first); k--) {
    const double* pivot = panel + (first + k) * kGroup;
    double sum = row[k];
    for (int64_t m = kGroup - 1; m > k; m--) sum -= row[m] * pivot[m];
    row[k] = sum / pivot[k];
  }
}

// The block of a panel on the diagonal, from the last row up. False where a pivot is not positive.
bool factor_block(double* panel, int64_t first) {
  for (int64_t i = kGroup - 1; i >= 0; i--) {
    solve_row(panel, first, first + i);
    double* row = panel + (first + i) * kGroup;
    double sum = row[i];
    for (int64_t m = kGroup - 1; m > i; m--) sum -= row[m] * row[m];
    if (!(sum > 0) || !std::isfinite(sum)) return false;
    row[i] = std::sqrt(sum);
  }
  return true;
}

bool damp(double* h, int64_t n, double damping) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += *diagonal(h, i);
  if (!std::isfinite(sum)) return false;
  const double more = sum > 0 ? damping * (sum / double(n)) : 1;
  for (int64_t i = 0; i < n; i++) *diagonal(h, i) += more;
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

// made_up[c] = sum over j < group of errors[j] * panel[j][c], j rising.
template <class V>
POTLUCK_INLINE void gather_errors_of(const double* panel, int64_t group, RowScratch* s) {
  using Lanes = typename V::Lanes;
  constexpr int64_t kPart = 2 * V::kLanes;
  std::memset(s->made_up, 0, sizeof s->made_up);
  for (int64_t begin = 0; begin < group; begin += kErrorChunk) {
    const int64_t end = std::min(group, begin + kErrorChunk);
    for (int64_t c = 0; c < kGroup; c += 4)
      for (int64_t part = 0; part < kRowLanes; part += kPart) {
        Lanes sum[4][2];
        for (int r = 0; r < 4; r++) copy_two(sum[r], s->made_up[c + r] + part);
        for (int64_t j = begin; j < end; j++) {
          Lanes error[2];
          copy_two(error, s->errors.data() + j * kRowLanes + part);
          const double* a = panel + j * kGroup + c;
          // a row of the panel for each pass: its quarter of the chunk behind this one
          if (part == 0) __builtin_prefetch(panel + (j + kErrorChunk) * kGroup + c);
          for (int r = 0; r < 4; r++)
            for (int half = 0; half < 2; half++) sum[r][half] += error[half] * a[r];
        }
        for (int r = 0; r < 4; r++) copy_two(s->made_up[c + r] + part, sum[r]);
      }
  }
}

POTLUCK_WIDTHS(gather_errors, gather_errors_of, (const double* panel, int64_t group, RowScratch* s), (panel, group, s))

// What the group would best be, given the errors before it, if it were not rounded.
template <class>
POTLUCK_INLINE void fill_wanted_of(const double* panel, int64_t group, RowScratch* s) {
  double error[kGroup][kRowLanes];
  for (int64_t c = 0; c < kGroup; c++)
    for (int64_t l = 0; l < kRowLanes; l++) {
      double sum = s->made_up[c][l];
      for (int64_t j = 0; j < c; j++) sum += error[j][l] * panel[(group + j) * kGroup + c];
      error[c][l] = -sum;
      s->wanted[c][l] = s->weights[size_t((group + c) * kRowLanes + l)] + sum;
    }
}

POTLUCK_WIDTHS(fill_wanted, fill_wanted_of, (const double* panel, int64_t group, RowScratch* s), (panel, group, s))

// For each lane a scale of candidates, the one with the least squared error weighted by D.
template <class>
POTLUCK_INLINE void fit_scales_of(const double* panel, int64_t group, RowScratch* s) {
  double extreme[kRowLanes] = {}, least[kRowLanes], weight[kGroup];
  for (int64_t c = 0; c < kGroup; c++) {
    weight[c] = panel[(group + c) * kGroup + c];
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

POTLUCK_WIDTHS(fit_scales, fit_scales_of, (const double* panel, int64_t group, RowScratch* s), (panel, group, s))

// Rounds the group with the scales found. nibbles: [kGroup, kRowLanes].
template <class>
POTLUCK_INLINE void round_group_of(const double* panel, int64_t group, RowScratch* s, uint8_t* nibbles) {
  for (int64_t c = 0; c < kGroup; c++) {
    double* error = s->errors.data() + (group + c) * kRowLanes;
    for (int64_t l = 0; l < kRowLanes; l++) {
      double sum = s->made_up[c][l];
      for (int64_t j = 0; j < c; j++)
        sum += s->errors[size_t((group + j) * kRowLanes + l)] * panel[(group + j) * kGroup + c];
      const double weight = s->weights[size_t((group + c) * kRowLanes + l)], scale = s->scale[l];
      const double z = scale == 0 ? 0 : step((weight + sum) / scale);
      error[l] = weight - z * scale;
      nibbles[c * kRowLanes + l] = uint8_t(int(z) + 8);
    }
  }
}

POTLUCK_WIDTHS(round_group, round_group_of, (const double* panel, int64_t group, RowScratch* s, uint8_t* nibbles), (panel, group, s, nibbles))

}  // namespace

void add_products(double* h, int64_t n, const float* x, int64_t tokens, int threads) {
  std::vector<double> packed(size_t(std::min(tokens, kTokens) * n));
  for (int64_t first = 0; first < tokens; first += kTokens) {
    const int64_t count = std::min(kTokens, tokens - first);
    each(count, threads, [&](int64_t t) {
      for (int64_t k = 0; k < n; k++) *packed_at(packed.data(), count, t, k) = double(x[(first + t) * n + k]);
    });
    update(h, packed.data(), count, 1, n, threads);
  }
}

bool factor_products(double* h, int64_t n, double damping, int threads) {
  if (!damp(h, n, damping)) return false;
  std::vector<double> packed(size_t(kGroup * n));  // V of the panel
  for (int64_t first = n - kGroup; first >= 0; first -= kGroup) {
    double* panel = panel_at(h, first);
    if (!factor_block(panel, first)) return false;
    each((first + kItemColumns - 1) / kItemColumns, threads, [&](int64_t item) {
      const int64_t end = std::min(first, (item + 1) * kItemColumns);
      for (int64_t i = item * kItemColumns; i < end; i++) {
        solve_row(panel, first, i);
        for (int64_t m = 0; m < kGroup; m++) *packed_at(packed.data(), kGroup, m, i) = panel[i * kGroup + m];
      }
    });
    update(h, packed.data(), kGroup, -1, first, threads);
  }
  each(n / kGroup, threads, [&](int64_t item) {
    double* panel = panel_at(h, item * kGroup);
    for (int64_t c = 0; c < kGroup; c++) {
      const int64_t k = item * kGroup + c;
      const double pivot = panel[k * kGroup + c];
      for (int64_t j = 0; j < k; j++) panel[j * kGroup + c] /= pivot;
      panel[k * kGroup + c] *= pivot;
    }
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
      const double* panel = panel_at(factor, group);
      gather_errors(panel, group, &s);
      fill_wanted(panel, group, &s);
      fit_scales(panel, group, &s);
      round_group(panel, group, &s, found);
      for (int64_t l = 0; l < count; l++) {
        const int64_t row = first + l;
        for (int64_t c = 0; c < kGroup; c++) nibbles[row * n + group + c] = found[c * kRowLanes + l];
        scales[row * (n / kGroup) + group / kGroup] = to_half_bits(float(s.scale[l]));
      }
    }
  });
}

}  // namespace potluck
