#pragma once
#include <node_api.h>

namespace potluck {

struct Kernels;

// What a draw needs of a row of logits, on the JavaScript thread; see src/kernels/logit-math.ts.
napi_value greatest_call(napi_env env, napi_callback_info info);
napi_value weigh_row(napi_env env, const Kernels& kernels, const napi_value* argument);

}  // namespace potluck
