#pragma once
#include <node_api.h>

namespace potluck {

// Single operations of a named kernel, for tests only: test/kernels compares them with the reference. Typed in
// src/kernels/addon.ts as KernelTests.
bool register_test_calls(napi_env env, napi_value exports);

}  // namespace potluck
