// The tokens of a pass, as src/kernels/native-backend.ts writes them.
#pragma once
#include <node_api.h>

#include "model.h"

namespace potluck {

// arguments: positions, sequences, pages, pageTableStarts, logitRows, lengths (Int32Array); frequencies (Float64Array).
// Page table i is pages[pageTableStarts[i] .. pageTableStarts[i + 1]). The angles of token t come from row lengths[t] of
// frequencies, [rows, pairs of all rotations].
// False with a pending RangeError where they do not fit the model.
bool read_batch(napi_env env, const napi_value* arguments, const Model& model, Batch* out);

}  // namespace potluck
