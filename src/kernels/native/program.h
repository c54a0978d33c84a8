// The steps of a run, as src/kernels/program.ts encodes them.
#pragma once
#include <node_api.h>

#include "executor.h"

namespace potluck {

// words: for each step op, layer, half (0 attention, 1 ffn), tiles, then for each tile its byte offset in the weights
// memory and its slot. Op: as OPS there.
// Checks every word against the model. False with a pending RangeError.
bool read_program(napi_env env, const Model& model, const double* words, size_t count, Program* out);

}  // namespace potluck
