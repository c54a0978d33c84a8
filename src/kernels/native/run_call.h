#pragma once
#include <node_api.h>

namespace potluck {

// run(model, words, eager): Promise<{computeMicroseconds, saturated}>; see program.h for the words.
napi_value run_call(napi_env env, napi_callback_info info);
// Of the thread-safe function by which the threads of a pool report a run.
void report_run(napi_env env, napi_value, void*, void* data);

}  // namespace potluck
