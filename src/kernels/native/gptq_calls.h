// The calls of error-compensating rounding; see gptq.h.
#pragma once
#include <node_api.h>

namespace potluck {

// addProducts, factorProducts, roundRows: typed in src/kernels/addon.ts.
bool register_gptq(napi_env env, napi_value exports);

}  // namespace potluck
