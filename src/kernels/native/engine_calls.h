#pragma once
#include <node_api.h>

namespace potluck {

// createPool, closePool, createModel, closeModel, setBatch, run, tileShape: typed in src/kernels/addon.ts.
bool register_engine(napi_env env, napi_value exports);

}  // namespace potluck
