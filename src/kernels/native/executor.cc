#include "thread_run.h"

#include <algorithm>

#include "rope_table.h"

namespace potluck {

void ThreadRun::run() {
  mine_.saturated = 0;
  if (!m_.batch.rotated) rotate_table();
  const std::vector<Step>& steps = program_.steps;
  for (size_t i = 0; i < steps.size();) {
    const Step& step = steps[i];
    if (step.op == Op::begin || step.op == Op::end) {
      size_t last = i + 1;
      while (last < steps.size() && (steps[last].op == Op::begin || steps[last].op == Op::end)) last++;
      pool_.each(tokens_, [&](int64_t token) {
        for (size_t s = i; s < last; s++) token_step(steps[s], token);
      });
      i = last;
      continue;
    }
    if (step.op == Op::head_begin) head_begin();
    if (step.op == Op::head_tiles) head_tiles(step);
    if (step.op == Op::tiles && step.half == 0) attention_tiles(step);
    if (step.op == Op::tiles && step.half == 1) ffn_tiles(step);
    i++;
  }
}

void ThreadRun::rotate_table() {
  const int half = int(m_.shape.head_dim / 2);
  pool_.each(tokens_, [&](int64_t t) {
    rope_row(m_.batch.positions[size_t(t)], m_.frequencies.data(), half, m_.cosines + t * half, m_.sines + t * half);
  });
}

void ThreadRun::norm_into(const float* x, const float* weight, const Rows& rows, int64_t row) {
  if (!w4()) {
    kernels_.rmsnorm(x, weight, int(width()), m_.shape.norm_epsilon, rows.floats + size_t(row) * rows.stride);
    return;
  }
  kernels_.rmsnorm(x, weight, int(width()), m_.shape.norm_epsilon, mine_.row);
  quantize_into(mine_.row, rows, row);
}

void ThreadRun::quantize_into(const float* x, const Rows& rows, int64_t row) {
  const size_t columns = rows.quantized.columns;
  uint8_t* at = rows.quantized.base + size_t(row) * rows.quantized.stride;
  float* scale = reinterpret_cast<float*>(at + columns);
  kernels_.quantize(x, int(columns / 32), reinterpret_cast<int8_t*>(at), scale,
                    reinterpret_cast<int32_t*>(scale + columns / 32));
}

void ThreadRun::token_step(const Step& step, int64_t token) {
  float* residual = m_.residual + size_t(token) * width();
  int32_t* partial = m_.partial + size_t(token) * width();
  if (step.op == Op::end) {
    kernels_.add_residual(residual, partial, m_.inverse(step.layer, step.half), int(width()));
    return;
  }
  norm_into(residual, m_.norm(step.layer, step.half), m_.input, token);
  std::fill(partial, partial + width(), 0);
}

void Job::work(Pool& pool, int thread) { ThreadRun(*this, pool, thread).run(); }

int64_t Job::saturated() const {
  int64_t sum = 0;
  for (const ThreadScratch& t : model_->threads) sum += t.saturated;
  return sum;
}

}  // namespace potluck
