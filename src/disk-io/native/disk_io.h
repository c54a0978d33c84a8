// Reads tiles from disk on threads of its own, and checks them. JavaScript sees what src/disk-io/disk-addon.ts types.
#pragma once
#include <node_api.h>

namespace potluck {

// Adds createReader, closeReader, openFile, closeFile, readRun, readCached, crc32c and crc32cVariants to `exports`.
bool register_disk_io(napi_env env, napi_value exports);

}  // namespace potluck
