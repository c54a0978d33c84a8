#include "thread_run.h"

#include <algorithm>

#include "rope_table.h"

namespace potluck {

static bool by_token(Op op) { return op == Op::begin || op == Op::end || op == Op::square_norms; }

void ThreadRun::run() {
  mine_.saturated = 0;
  if (!m_.batch.rotated) rotate_table();
  const std::vector<Step>& steps = program_.steps;
  for (size_t i = 0; i < steps.size();) {
    const Step& step = steps[i];
    if (by_token(step.op)) {
      size_t last = i + 1;
      while (last < steps.size() && by_token(steps[last].op)) last++;
      pool_.each(tokens_, [&](int64_t token) {
        for (size_t s = i; s < last; s++) token_step(steps[s], token);
      });
      i = last;
      continue;
    }
    if (step.op == Op::head_begin) {
      if (thread_ == 0) job_.nearly_done();
      head_begin();
    }
    if (step.op == Op::head_tiles) head_tiles(step);
    if (step.op == Op::tiles && step.half == 0) attention_tiles(step);
    if (step.op == Op::tiles && step.half == 1) ffn_tiles(step);
    if (step.op == Op::expert_tiles) ffn_tiles(step);
    if (step.op == Op::squares) square_tiles(step);
    i++;
  }
}

void ThreadRun::rotate_table() {
  const size_t pairs = m_.pairs();
  pool_.each(tokens_, [&](int64_t t) {
    const float* frequencies = m_.batch.frequencies.data() + size_t(m_.batch.lengths[size_t(t)]) * pairs;
    for (size_t r = 0; r < m_.shape.rotations.size(); r++) {
      const size_t at = m_.rotation_starts[r];
      rope_row(m_.batch.positions[size_t(t)], frequencies + at, int(m_.shape.rotations[r].pairs),
               m_.shape.rotations[r].magnitude, m_.cosines + size_t(t) * pairs + at, m_.sines + size_t(t) * pairs + at);
    }
  });
}

float* ThreadRun::norm_into(const float* x, const float* weight, const Rows& rows, int64_t row) {
  float* out = w4() ? mine_.row : rows.floats + size_t(row) * rows.stride;
  if (weight != nullptr) {
    kernels_.rmsnorm(x, weight, int(width()), m_.shape.norm_epsilon, out);
  } else {
    std::copy(x, x + width(), out);
    std::fill(out + width(), out + round_up(m_.shape.width, kGroup), 0.0f);
  }
  return out;
}

void ThreadRun::quantize_into(float* x, const float* a4, const Rows& rows, int64_t row) {
  const int64_t groups = int64_t(rows.quantized.columns) / kGroup;
  if (m_.shape.hadamard != 0) kernels_.hadamard(x, int(groups));
  quantize_groups(x, a4, groups, rows, row, 0);
}

void ThreadRun::quantize_groups(const float* x, const float* a4, int64_t groups, const Rows& rows, int64_t row,
                                int64_t group) {
  const size_t columns = rows.quantized.columns;
  uint8_t* at = rows.quantized.base + size_t(row) * rows.quantized.stride;
  float* scale = reinterpret_cast<float*>(at + columns);
  int32_t* bias = reinterpret_cast<int32_t*>(scale + columns / 32);
  for (const int64_t end = group + groups; group < end;) {
    const int64_t block = group / kBlockGroups, count = std::min(end, (block + 1) * kBlockGroups) - group;
    (a4[block] != 0 ? kernels_.quantize4 : kernels_.quantize8)(x, int(count), reinterpret_cast<int8_t*>(at) + group * kGroup,
                                                               scale + group, bias + group);
    x += count * kGroup;
    group += count;
  }
}

void ThreadRun::token_step(const Step& step, int64_t token) {
  if (step.op == Op::end) return end(step, token);
  if (step.op == Op::square_norms) return square_norms(token);
  const float* weight = m_.shape.input_norms ? m_.norm(step.layer, step.half) : nullptr;
  float* x = norm_into(m_.residual + size_t(token) * width(), weight, m_.input, token);
  int32_t* partial = m_.partial + size_t(token) * width();
  std::fill(partial, partial + width(), 0);
  if (step.half == 1 && m_.shape.layer_features[size_t(step.layer)].experts) route(step, token, x);
  if (w4()) quantize_into(x, m_.input_a4(step.layer, step.half), m_.input, token);
}

void ThreadRun::end(const Step& step, int64_t token) {
  float* residual = m_.residual + size_t(token) * width();
  const int32_t* partial = m_.partial + size_t(token) * width();
  const float* inverse = m_.inverse(step.layer, step.half);
  const float* bias = m_.sum_bias(step.layer, step.half);
  const float* weight = m_.output_norm(step.layer, step.half);
  if (bias == nullptr && weight == nullptr) return kernels_.add_residual(residual, partial, inverse, int(width()));
  float* sum = mine_.sum;
  std::fill(sum, sum + width(), 0.0f);
  kernels_.add_residual(sum, partial, inverse, int(width()));
  if (bias != nullptr)
    for (size_t i = 0; i < width(); i++) sum[i] += bias[i];
  if (weight != nullptr) {
    kernels_.rmsnorm(sum, weight, int(width()), m_.shape.norm_epsilon, mine_.row);
    sum = mine_.row;
  }
  for (size_t i = 0; i < width(); i++) residual[i] += sum[i];
}

void Job::work(Pool& pool, int thread) { ThreadRun(*this, pool, thread).run(); }

int64_t Job::saturated() const {
  int64_t sum = 0;
  for (const ThreadScratch& t : model_->threads) sum += t.saturated;
  return sum;
}

}  // namespace potluck
