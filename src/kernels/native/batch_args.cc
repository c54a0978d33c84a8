#include "batch_args.h"

#include <algorithm>
#include <cmath>

#include "napi_args.h"

namespace potluck {
namespace {

bool read_int32s(napi_env env, napi_value value, const char* name, size_t most, std::vector<int32_t>* out) {
  void* data;
  size_t count;
  if (!read_typed(env, value, name, napi_int32_array, &data, &count)) return false;
  if (count > most) {
    throw_range(env, name, "is too long");
    return false;
  }
  out->assign(static_cast<int32_t*>(data), static_cast<int32_t*>(data) + count);
  return true;
}

const char* page_table_problem(const Batch& b, const Model& m) {
  if (b.page_table_starts.empty() || b.page_table_starts.front() != 0 ||
      b.page_table_starts.back() != int32_t(b.pages.size()))
    return "page table starts do not span the pages";
  for (size_t i = 1; i < b.page_table_starts.size(); i++) {
    if (b.page_table_starts[i] < b.page_table_starts[i - 1]) return "page table starts fall";
    if (b.page_table_starts[i] - b.page_table_starts[i - 1] > m.limits.kv_pages)
      return "a sequence has more pages than there are";
  }
  for (int32_t page : b.pages)
    if (page < 0 || page >= m.limits.kv_pages) return "a page is not from 0 to kvPages - 1";
  return nullptr;
}

// Null, or what is wrong with a batch.
const char* batch_problem(const Batch& b, const Model& m) {
  if (b.sequences.size() != b.positions.size()) return "positions and sequences differ in length";
  if (const char* problem = page_table_problem(b, m)) return problem;
  const size_t tables = b.page_table_starts.size() - 1;
  std::vector<int32_t> last(tables, -1);
  for (size_t t = 0; t < b.positions.size(); t++) {
    const int32_t sequence = b.sequences[t], position = b.positions[t];
    if (sequence < 0 || size_t(sequence) >= tables) return "a sequence has no page table";
    if (position < 0 || position >= m.shape.context) return "a position is not from 0 to context - 1";
    const size_t s = size_t(sequence);
    if (position / kPagePositions >= b.page_table_starts[s + 1] - b.page_table_starts[s])
      return "a position is behind the pages of its sequence";
    if (position <= last[s]) return "positions of a sequence do not rise";
    last[s] = position;
  }
  if (b.lengths.size() != b.positions.size()) return "positions and lengths differ in length";
  const size_t rows = m.pairs() == 0 ? 1 : b.frequencies.size() / m.pairs();
  for (int32_t row : b.lengths)
    if (row < 0 || size_t(row) >= rows) return "a length has no frequencies";
  int32_t before = -1;
  for (int32_t row : b.logit_rows) {
    if (row <= before || size_t(row) >= b.positions.size()) return "logit rows are not rising tokens of the batch";
    before = row;
  }
  return nullptr;
}

// Angles stay under 2^20 radians, where their reduction is exact.
bool read_frequencies(napi_env env, napi_value value, const Model& m, std::vector<float>* out) {
  void* data;
  size_t count;
  if (!read_typed(env, value, "frequencies", napi_float64_array, &data, &count)) return false;
  if (m.pairs() == 0 ? count != 0 : count % m.pairs() != 0) {
    throw_range(env, "frequencies", "has not whole rows");
    return false;
  }
  for (size_t i = 0; i < count; i++) {
    const double frequency = static_cast<double*>(data)[i];
    if (!(std::fabs(frequency) * double(m.shape.context) < 0x1p20)) {
      throw_range(env, "frequencies", "times context is over 2^20 radians, or not a number");
      return false;
    }
    out->push_back(float(frequency));
  }
  return true;
}

// Where tokens of one page lie apart, all tokens are one run.
void find_page_runs(Batch* b) {
  std::vector<int32_t> pages;
  for (int64_t t = 0; t < b->tokens(); t++) {
    const int32_t page = b->pages_of(t)[b->positions[size_t(t)] / kPagePositions];
    if (!pages.empty() && pages.back() == page) continue;
    pages.push_back(page);
    b->page_runs.push_back(int32_t(t));
  }
  std::sort(pages.begin(), pages.end());
  if (std::adjacent_find(pages.begin(), pages.end()) != pages.end()) b->page_runs.resize(1);
  b->page_runs.push_back(int32_t(b->tokens()));
}

}  // namespace

bool read_batch(napi_env env, const napi_value* arguments, const Model& m, Batch* out) {
  const size_t tokens = size_t(m.limits.max_tokens);
  if (!read_int32s(env, arguments[0], "positions", tokens, &out->positions) ||
      !read_int32s(env, arguments[1], "sequences", tokens, &out->sequences) ||
      !read_int32s(env, arguments[2], "pages", size_t(1) << 26, &out->pages) ||
      !read_int32s(env, arguments[3], "pageTableStarts", size_t(1) << 20, &out->page_table_starts) ||
      !read_int32s(env, arguments[4], "logitRows", size_t(m.limits.max_logit_rows), &out->logit_rows) ||
      !read_int32s(env, arguments[5], "lengths", tokens, &out->lengths) ||
      !read_frequencies(env, arguments[6], m, &out->frequencies))
    return false;
  if (const char* problem = batch_problem(*out, m)) {
    throw_range(env, "batch", problem);
    return false;
  }
  find_page_runs(out);
  return true;
}

}  // namespace potluck
