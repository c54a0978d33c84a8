// Calls that measure what this processor and its memory can do at most.
#pragma once
#include <node_api.h>

namespace potluck {

// limitPrograms(), measureRead(...) and measureDot(...); see src/kernels/addon.ts.
bool register_limits(napi_env env, napi_value exports);

}  // namespace potluck
