// The module: every call of the addon is registered here and typed in src/kernels/addon.ts.
#include <node_api.h>

#include "../../disk-io/native/disk_io.h"
#include "dispatch.h"
#include "engine_calls.h"
#include "gptq_calls.h"
#include "limits.h"
#include "memory.h"
#include "test_calls.h"

NAPI_MODULE_INIT() {
  const bool registered = potluck::register_memory(env, exports) && potluck::register_dispatch(env, exports) &&
                          potluck::register_engine(env, exports) && potluck::register_test_calls(env, exports) &&
                          potluck::register_limits(env, exports) && potluck::register_gptq(env, exports) &&
                          potluck::register_disk_io(env, exports);
  if (!registered) napi_throw_error(env, "KERNEL_FAILED", "the native addon could not register its calls");
  return exports;
}
