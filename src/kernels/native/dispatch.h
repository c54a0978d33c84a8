// Which kernels this processor and operating system can run.
#pragma once
#include <node_api.h>

#include <string>

#include "kernels.h"

namespace potluck {

// The kernels of that name; for an empty name those that POTLUCK_KERNEL names, or the fastest. Null with a pending KERNEL_UNKNOWN exception where the
// name is unknown or this processor cannot run it.
const Kernels* select_kernels(napi_env env, const std::string& name);

// kernels(): {available: string[], unavailable: {name, reason}[], selected}
bool register_dispatch(napi_env env, napi_value exports);

}  // namespace potluck
