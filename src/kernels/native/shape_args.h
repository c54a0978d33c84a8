// The numbers of a model, as src/kernels/shape-numbers.ts writes them.
#pragma once
#include <node_api.h>

#include "model.h"
#include "tile_shape.h"

namespace potluck {

// numbers: Float64Array, in the order of kFields in shape_args.cc, then for each rotation its pairs and its magnitude, then
// for each layer window, rotation and experts (0 or 1).
// False with a pending RangeError where a number, or what they say together, is not possible.
bool read_shape(napi_env env, napi_value numbers, ModelShape* shape, ModelLimits* limits);

// tileShape(numbers): Float64Array, for each kind most tiles, bytes of a tile, panels, then for each panel offset, rows,
// padded rows, columns, padded columns, bytes, then the offset of each vector; then padded vocabulary, bytes of a KV page,
// the place of each constant of a layer, floats of a layer, place of the model's constants, floats of all.
// For the test that compares tile_shape.h with src/pack/tile-shape.ts.
napi_value tile_shape_call(napi_env env, napi_callback_info info);

}  // namespace potluck
