// Memory outside the V8 heap: page-aligned regions that JavaScript sees as ArrayBuffers, with a use count, so that no
// region is unmapped while a job or a read works in it.
#pragma once
#include <node_api.h>

#include <cstddef>

namespace potluck {

// Marks the region that `at` lies in as in use. False when `at` is in no region of allocate(). Any thread.
bool hold_memory(const void* at);

// Ends one hold_memory of the same region. The last drop unmaps a region whose ArrayBuffer is already gone. Any thread.
void drop_memory(const void* at);

// Bytes rounded up to whole pages, mapped, zeroed, 4096-byte aligned, in huge pages from 4 MiB on; nullptr when the
// system refuses. For memory that JavaScript never sees; unmap_pages gives it back.
void* map_pages(size_t bytes, bool huge);
void unmap_pages(void* at, size_t bytes);

// Gives the whole pages inside [at, at + bytes) back to the system; they are zero when they are next touched.
void discard_pages(void* at, size_t bytes);

// A region of `bytes` (at least 1) with its ArrayBuffer; false with a pending exception when memory is refused.
bool create_region(napi_env env, size_t bytes, napi_value* buffer, void** data);

// Adds allocate(bytes), discard(buffer, offset, bytes) and release(buffer) to `exports`.
bool register_memory(napi_env env, napi_value exports);

}  // namespace potluck
