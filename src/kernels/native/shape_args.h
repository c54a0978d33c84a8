// The numbers of a model, as src/kernels/native-backend.ts writes them.
#pragma once
#include <node_api.h>

#include "model.h"
#include "tile_shape.h"

namespace potluck {

// numbers: Float64Array [weights (0 w4, 1 bf16), width, layers, queryHeads, kvHeads, headDim, ffnWidth, vocabulary,
// context, normEpsilon, partsPerKvHead, ffnColumns, headRows, attentionTiles, kvPages, maxTokens, maxLogitRows].
// False with a pending RangeError where a number, or what they say together, is not possible.
bool read_shape(napi_env env, napi_value numbers, ModelShape* shape, ModelLimits* limits);

// tileShape(numbers): Float64Array, for each kind tiles, bytes of a tile, panels, then for each panel offset, rows,
// padded rows, columns, padded columns, bytes; then padded vocabulary, floats of constants, bytes of a KV page.
// For the test that compares tile_shape.h with src/pack/tile-shape.ts.
napi_value tile_shape_call(napi_env env, napi_callback_info info);

}  // namespace potluck
